"""The report as one HTML file: no network, no scripts, all data escaped."""

from importlib.resources import files
from typing import Any

from selectmoe_core.report import pictures, wording
from selectmoe_core.report.summary import STRONG_CORRELATION, ScoreSummary, Summary

TEMPLATE = "report.html.j2"
STYLE = "report.css"


def render_html(summary: Summary) -> str:
    """Return the page.

    The template escapes every text; only the pictures are trusted, and matplotlib escapes the texts
    in them.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("selectmoe_core.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in ("number", "count", "percent", "times", "duration", "plural", "correlation"):
        environment.filters[name] = getattr(wording, name)
    environment.globals.update(measured=wording.measured, signed=wording.signed)
    template = environment.from_string(folder.joinpath(TEMPLATE).read_text(encoding="utf-8"))
    drawn = {name: Markup(svg) for name, svg in _pictures(summary).items()}
    page = template.render(
        summary=summary,
        record=summary.record,
        pictures=drawn,
        style=Markup(folder.joinpath(STYLE).read_text(encoding="utf-8")),
        strong=STRONG_CORRELATION,
        tail=_tail,
    )
    return str(page.lstrip())


def _pictures(summary: Summary) -> dict[str, str]:
    """Return the pictures by their names in the template."""
    found: dict[str, str | None] = {}
    for number, scores in enumerate(summary.scores):
        found[f"scores-{scores.key}"] = pictures.score_picture(scores, f"s{number}")
    if summary.selection:
        found["composition"] = pictures.composition_picture(summary.selection, "c")
    for number, training in enumerate(summary.training):
        if training.stage == "warmup" or len(training.curves) > 1:
            found[f"training-{training.key}"] = pictures.training_picture(training, f"t{number}")
    trained = [training for training in summary.training if training.stage == "train"]
    found["losses"] = pictures.losses_picture(trained, "l")
    if summary.evaluation:
        found["evaluation"] = pictures.evaluation_picture(summary.evaluation, "e")
    return {name: svg for name, svg in found.items() if svg}


def _tail(scores: ScoreSummary) -> list[tuple[str, Any]]:
    """Return the two ends of a score with their titles."""
    ends = (("best", scores.best), ("worst", scores.worst))
    return [(f"The {len(shown)} {name} examples", shown) for name, shown in ends if shown]

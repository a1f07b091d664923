"""A comparison as one HTML page: no network, no scripts, all data escaped."""

from importlib.resources import files
from typing import Any

from selectmoe_core.compare.findings import MEAN
from selectmoe_core.compare.rendering import METHOD
from selectmoe_core.compare.summary import Summary, cost_rows, cost_sentences, rows_of, titles
from selectmoe_core.report.html import STYLE
from selectmoe_core.report.svg import OWN, PLAIN, RANDOM, drawing, new_figure, to_svg

TEMPLATE = "compare.html.j2"
COLOURS = {"strategy": OWN, "random": RANDOM}


def render_page(summary: Summary) -> str:
    """Return the page; the template escapes every text, and matplotlib those in the picture."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("selectmoe_core.compare").joinpath(TEMPLATE).read_text(encoding="utf-8")
    style = files("selectmoe_core.report").joinpath(STYLE).read_text(encoding="utf-8")
    tables = [(title, rows_of(summary, name)) for name, title in titles(summary).items()]
    page = environment.from_string(template).render(
        summary=summary,
        tables=tables,
        costs=cost_rows(summary),
        sentences=cost_sentences(summary),
        method=METHOD,
        picture=Markup(picture(summary)) if _drawn(summary) else "",
        style=Markup(style),
    )
    return str(page.lstrip())


def _drawn(summary: Summary) -> list[Any]:
    return [
        one
        for one in summary.findings.results
        if one.contender.label in summary.costs and summary.costs[one.contender.label].total > 0
    ]


def picture(summary: Summary) -> str:
    """Draw every arm's result against what it cost in all; the base model is a dashed line."""
    judged = summary.findings.judged
    scale = 100 if judged[0].share else 1
    with drawing():
        figure = new_figure(3.6)
        axes = figure.subplots()
        for one in _drawn(summary):
            mean = one.figures[MEAN]
            cost = summary.costs[one.contender.label].total
            low, high = (
                (mean.value - mean.low, mean.high - mean.value)
                if mean.low is not None and mean.high is not None
                else (0.0, 0.0)
            )
            axes.errorbar(
                cost, scale * mean.value, yerr=[[scale * max(low, 0)], [scale * max(high, 0)]],
                fmt="o", markersize=5, color=COLOURS.get(one.contender.role, PLAIN),
            )  # fmt: skip
            axes.annotate(
                one.contender.label, (cost, scale * mean.value), xytext=(6, 4),
                textcoords="offset points", fontsize=8.5,
            )  # fmt: skip
        for one in summary.findings.results:
            if one.contender.role == "base":
                axes.axhline(scale * one.figures[MEAN].value, color=PLAIN, linestyle=(0, (2, 2)))
        axes.set_xlabel("device-seconds of warm-up, scoring, selection and training")
        axes.set_ylabel("score in %" if scale == 100 else "score")
        axes.grid(visible=True, axis="y")
        axes.margins(x=0.15)
        return to_svg(figure, "The result of every arm against its cost", "q")

"""The report as one HTML file: no network, one script of ours, all data escaped."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from selectmoe_core.report import charts, wording
from selectmoe_core.report.sections.headline import Z
from selectmoe_core.report.summary import STRONG_CORRELATION, Share, Summary

TEMPLATE = "report.html.j2"
STYLE = "report.css"
SCRIPT = "report.js"
DIFFERENT, FACTOR = 0.005, 0.1
"""Shares that differ by less than half a point, or by less than a tenth, are called equal."""
SOURCES_SHOWN = 12
"""Up to this many sources are shown at once, the others folded."""
FILES = {
    "warmup": ("model", "the warmed-up model"),
    "score": ("scores", "every row's score and details"),
    "select": ("selected_data.jsonl", "the chosen rows in full, the best first"),
    "train": ("model", "the trained adapter, with its card"),
}
"""What a reader may want of the artifacts of the own arm, by stage."""
KINDS = ("best", "worst", "border", "chosen", "random")
"""The kinds of examples, in the order of the page's filter."""


def render_html(summary: Summary) -> str:
    """Return the page; the template escapes every text."""
    template = environment().get_template(TEMPLATE)
    page = template.render(
        summary=summary,
        record=summary.record,
        strong=STRONG_CORRELATION,
        kinds=_kinds(summary),
        sources_shown=SOURCES_SHOWN,
        shares_differ=shares_differ,
        left_out_reasons=_left_out(summary),
        files=_files(summary),
        **_pictures(summary),
    )
    return str(page.lstrip())


def _kinds(summary: Summary) -> list[str]:
    """Return the kinds of examples that are shown."""
    found = {kind for scores in summary.scores[:1] for one in scores.shown for kind in one.kinds}
    return [kind for kind in KINDS if kind in found]


@cache
def environment() -> Any:  # noqa: ANN401
    """Return jinja2's environment for the pages of selectmoe: everything is escaped.

    There is one in a process, which compiles each template once.

    ``base.html.j2`` is the page around the content, ``macros.html.j2`` its tables and pictures.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=PackageLoader("selectmoe_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "count", "percent", "times", "duration", "plural", "correlation"):
        made.filters[name] = getattr(wording, name)
    made.globals.update(measured=wording.measured, signed=wording.signed)
    folder = files("selectmoe_core.report")
    style = folder.joinpath(STYLE).read_text(encoding="utf-8")
    script = folder.joinpath(SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals.update(style=Markup(style), script=Markup(script), script_digest=digest)
    return made


def shares_differ(groups: tuple[Share, ...]) -> bool:
    """Return whether any group's share of the selection differs from its share of the pool."""
    return any(
        abs(group.kept_share - group.pool_share) > max(DIFFERENT, FACTOR * group.pool_share)
        for group in groups
    )


def _files(summary: Summary) -> list[tuple[str, str]]:
    """Return the files of the own arm that are there: the path from the page, and what it is."""
    return [
        (f"artifacts/{node.key.replace(':', '-')}/{FILES[node.stage][0]}", FILES[node.stage][1])
        for node in summary.record.nodes
        if summary.own in node.arms
        and node.stage in FILES
        and (node.folder / FILES[node.stage][0]).exists()
    ]


def _left_out(summary: Summary) -> list[tuple[str, str]]:
    """Return how many rows each filter left out for each reason, the most first."""
    counts: Counter[str] = Counter()
    for _, reason, rows in summary.selection.left_out if summary.selection else ():
        counts[reason] += rows
    return [(reason, wording.count(rows)) for reason, rows in counts.most_common()]


def _pictures(summary: Summary) -> Mapping[str, Any]:
    """Return the numbers of the pictures by the names that the templates use."""
    evaluation, lengths = summary.evaluation, summary.lengths
    trained = [training for training in summary.training if training.stage == "train"]
    return {
        "ridges": {scores.key: charts.ridges(scores) for scores in summary.scores},
        "panels": {one.key: charts.training_panels(one) for one in summary.training},
        "losses": charts.losses_panel(trained),
        "dots": charts.dot_plot(evaluation, Z) if evaluation else None,
        "arm_styles": charts.arm_styles(evaluation.arms) if evaluation else {},
        "length_ticks": charts.ticks(lengths.edges[0], lengths.edges[-1]) if lengths else [],
        "length_paths": {
            row.name: charts.steps_path(row.counts, float(row.counts.max()))
            for row in (lengths.rows if lengths else ())
        },
    }

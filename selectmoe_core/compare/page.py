"""A comparison as one HTML page: no network, the report's own script, all data escaped."""

from importlib.resources import files

from selectmoe_core.compare.advice import next_steps, resolution
from selectmoe_core.compare.pictures import against_cost, differences
from selectmoe_core.compare.rendering import METHOD
from selectmoe_core.compare.summary import (
    Summary,
    by_seed_rows,
    cost_rows,
    cost_sentences,
    rows_of,
    titles,
)
from selectmoe_core.report.html import environment

TEMPLATE = "compare.html.j2"


def render_page(summary: Summary) -> str:
    """Return the page; the template escapes every text."""
    text = files("selectmoe_core.compare").joinpath(TEMPLATE).read_text(encoding="utf-8")
    page = (
        environment()
        .from_string(text)
        .render(
            summary=summary,
            tables=[(title, rows_of(summary, name)) for name, title in titles(summary).items()],
            costs=cost_rows(summary),
            sentences=cost_sentences(summary),
            method=METHOD,
            differences=differences(summary),
            resolution=resolution(summary),
            plane=against_cost(summary),
            by_seed=by_seed_rows(summary),
            overlap=summary.overlap,
            next_steps=next_steps(summary),
        )
    )
    return str(page.lstrip())

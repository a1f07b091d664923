"""A comparison as one HTML page: no network, no scripts, all data escaped."""

from importlib.resources import files

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
from selectmoe_core.report.html import STYLE

TEMPLATE = "compare.html.j2"


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
        differences=Markup(differences(summary)),
        against_cost=Markup(against_cost(summary)),
        by_seed=by_seed_rows(summary),
        style=Markup(style),
    )
    return str(page.lstrip())

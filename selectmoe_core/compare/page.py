"""A comparison as one HTML page: no network, no scripts, all data escaped."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from selectmoe_core.compare.findings import MEAN, Result
from selectmoe_core.compare.rendering import METHOD
from selectmoe_core.compare.summary import Summary, cost_rows, cost_sentences, rows_of, titles
from selectmoe_core.report.html import STYLE
from selectmoe_core.report.svg import OWN, PLAIN, RANDOM, drawing, new_figure, to_svg

TEMPLATE = "compare.html.j2"
LETTER, LINE, LONGEST = 4.6, 10.5, 32
"""Of the names in the picture: points a letter takes, points a line takes, and most letters."""
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


def _drawn(summary: Summary) -> list[Result]:
    return [
        one
        for one in summary.findings.results
        if one.contender.label in summary.costs and summary.costs[one.contender.label].total > 0
    ]


def picture(summary: Summary) -> str:
    """Draw every arm's result against what it cost in all; the base model is a dashed line."""
    scale = 100 if summary.findings.judged[0].share else 1
    with drawing():
        figure = new_figure(3.8)
        axes = figure.subplots()
        points = []
        for one in _drawn(summary):
            mean, cost = one.figures[MEAN], summary.costs[one.contender.label].total
            ends = (mean.value if end is None else end for end in (mean.low, mean.high))
            below, above = (scale * abs(mean.value - end) for end in ends)
            axes.errorbar(
                cost, scale * mean.value, yerr=[[below], [above]], fmt="o", markersize=5,
                color=COLOURS.get(one.contender.role, PLAIN),
            )  # fmt: skip
            points.append((cost, scale * mean.value, one.contender.label))
        for one in summary.findings.results:
            if one.contender.role == "base":
                axes.axhline(scale * one.figures[MEAN].value, color=PLAIN, linestyle=(0, (2, 2)))
        axes.set_xlabel("device-seconds of warm-up, scoring, selection and training")
        axes.set_ylabel("score in %" if scale == 100 else "score")
        axes.grid(visible=True, axis="y")
        axes.margins(x=0.05)
        axes.set_xlim(right=axes.get_xlim()[1] + 0.25 * (axes.get_xlim()[1] - axes.get_xlim()[0]))
        _name(figure, axes, points)
        return to_svg(figure, "The result of every arm against its cost", "q")


def _name(figure: Any, axes: Any, points: Sequence[tuple[float, float, str]]) -> None:  # noqa: ANN401
    """Write the names beside their points, one below the other where they would overlap."""
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    taken: list[tuple[float, float, float]] = []
    places = [(axes.transData.transform((x, y)) * scale, x, y, name) for x, y, name in points]
    for (across, up), x, y, name in sorted(places, key=lambda place: -place[0][1]):
        right, height = across + 8 + LETTER * len(name[:LONGEST]), up
        for left, end, other in taken:
            if left < right and across < end and abs(height - other) < LINE:
                height = other - LINE
        taken.append((across, right, height))
        axes.annotate(
            name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…", (x, y),
            xytext=(8, height - up - 3), textcoords="offset points", fontsize=8.5,
        )  # fmt: skip

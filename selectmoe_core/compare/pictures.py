"""The pictures of a comparison: differences to random, and results against their cost."""

from collections.abc import Sequence
from typing import Any

from selectmoe_core.compare.findings import MEAN, Result
from selectmoe_core.compare.summary import Summary
from selectmoe_core.report.svg import OWN, PLAIN, RANDOM, drawing, new_figure, to_svg

LETTER, LINE, LONGEST = 4.6, 10.5, 32
"""Of the names in the picture: points a letter takes, points a line takes, and most letters."""
COLOURS = {"strategy": OWN, "random": RANDOM}
ROW, FRAME = 0.3, 0.75
"""Of the differences: inches that a row takes, and those above and below all rows."""


def differences(summary: Summary) -> str:
    """Draw every arm's difference to its reference with its interval; empty where there is none."""
    found = [
        one for one in summary.findings.results
        if one.figures[MEAN].difference is not None and one.contender.role != "base"
    ]  # fmt: skip
    if not found:
        return ""
    scale = 100 if summary.findings.judged[0].share else 1
    with drawing():
        figure = new_figure(FRAME + ROW * len(found))
        axes = figure.subplots()
        for row, one in enumerate(reversed(found)):
            estimate = one.figures[MEAN].difference
            assert estimate is not None
            value, low, high = (scale * n for n in (estimate.value, estimate.low, estimate.high))
            colour = COLOURS.get(one.contender.role, PLAIN)
            axes.plot([low, high], [row, row], color=colour, linewidth=2)
            axes.plot(value, row, "o", color=colour, markersize=6)
        axes.axvline(0, color=RANDOM, linestyle=(0, (2, 2)))
        names = [one.contender.label for one in reversed(found)]
        axes.set_yticks(range(len(found)), [_short(name) for name in names])
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.set_xlabel("points above random" if scale == 100 else "difference to random")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        return to_svg(figure, "The difference of every arm to random, with its interval", "d")


def _drawn(summary: Summary) -> list[Result]:
    return [
        one
        for one in summary.findings.results
        if one.contender.label in summary.costs and summary.costs[one.contender.label].total > 0
    ]


def against_cost(summary: Summary) -> str:
    """Draw every arm's result against its cost, and the base model as a dashed line.

    Empty where the costs are not known.
    """
    if not _drawn(summary):
        return ""
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
        axes.set_xlabel("device-seconds of choosing and training")
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
            _short(name), (x, y),
            xytext=(8, height - up - 3), textcoords="offset points", fontsize=8.5,
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"

"""The numbers of a comparison's pictures, which the page draws with plain HTML.

Places are in percent, so that pictures fit a phone, a screen and paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from selectmoe_core.compare.findings import MEAN, Result
from selectmoe_core.compare.summary import Summary, amount, seconds, span
from selectmoe_core.report.charts import Mark, Tick, ticks

STYLES = {"strategy": "own", "random": "random"}
"""The style of arms by role; all other baselines look alike."""
PLAIN = "base"
ROOM = 0.06
"""Free room on each side of a picture, as a share of it."""


@dataclass(frozen=True)
class Bars:
    """All differences over one axis, with the place of no difference."""

    ticks: list[Tick]
    rows: tuple[Mark, ...]
    zero: float
    axis: str


@dataclass(frozen=True)
class Point:
    """An arm's result against its cost, in percent of width and height.

    Attributes:
        number: what stands in the picture and in its key.
        arm: its label.
        style: how it is drawn.
        across: place on the axis of costs.
        up: place on the axis of results.
        low: lower end of its interval.
        high: upper end of its interval.
        text: the figures.
    """

    number: int
    arm: str
    style: str
    across: float
    up: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Plane:
    """Results against costs.

    Attributes:
        points: the arms.
        costs: marks of the horizontal axis.
        results: marks of the vertical axis.
        base: the place of the base model on the vertical axis, where there is one.
        unit: of the results.
    """

    points: tuple[Point, ...]
    costs: list[Tick]
    results: list[Tick]
    base: float | None
    unit: str


@dataclass(frozen=True)
class _Scale:
    """An axis from ``low`` to ``high``."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "_Scale":
        """Return an axis with some room beside the values."""
        low, high = min(values), max(values)
        room = ROOM * ((high - low) or abs(high) or 1.0)
        return cls(low - room, high + room)

    def place(self, value: float) -> float:
        """Return the place of a value in percent."""
        return 100 * (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[Tick]:
        return ticks(self.low, self.high, 8)


def differences(summary: Summary) -> Bars | None:
    """Return every arm's difference to its reference; ``None`` where there is none."""
    found = [
        one
        for one in summary.findings.results
        if one.figures[MEAN].difference is not None and one.contender.role != "base"
    ]
    if not found:
        return None
    share = summary.findings.judged[0].share
    factor = 100 if share else 1
    ends = [0.0]
    for one in found:
        estimate = one.figures[MEAN].difference
        assert estimate is not None
        ends += [factor * estimate.low, factor * estimate.high]
    scale = _Scale.of(ends)
    rows = tuple(_bar(one, scale, share=share) for one in found)
    axis = "points above random" if share else "difference to random"
    return Bars(scale.ticks, rows, scale.place(0.0), axis)


def _bar(result: Result, scale: _Scale, *, share: bool) -> Mark:
    estimate = result.figures[MEAN].difference
    assert estimate is not None
    factor = 100 if share else 1
    left, right = (scale.place(factor * end) for end in (estimate.low, estimate.high))
    label = result.contender.label
    said = amount(estimate.value, share=share, sign=True)
    text = f"{label}: {said} ({span(estimate.low, estimate.high, share=share)})"
    place = scale.place(factor * estimate.value)
    return Mark(label, _style(result), place, left, right - left, text)


def against_cost(summary: Summary) -> Plane | None:
    """Return every arm's result against its cost; ``None`` where the costs are not known."""
    drawn = [
        one
        for one in summary.findings.results
        if one.contender.label in summary.costs and summary.costs[one.contender.label].total > 0
    ]
    if not drawn:
        return None
    share = summary.findings.judged[0].share
    factor = 100 if share else 1
    base = next(
        (one.figures[MEAN].value for one in summary.findings.results if _is_base(one)), None
    )
    values = [factor * end for one in drawn for end in _ends(one)]
    results = _Scale.of([*values, *([] if base is None else [factor * base])])
    spent = [summary.costs[one.contender.label].total for one in drawn]
    costs = _Scale.of([0.0, *spent])
    points = []
    for one, cost in zip(drawn, spent, strict=True):
        low, value, high = (results.place(factor * end) for end in _ends(one))
        label = one.contender.label
        said = amount(one.figures[MEAN].value, share=share)
        text = f"{label}: {said} for {seconds(cost)}"
        points.append(
            Point(
                summary.numbers[label],
                label,
                _style(one),
                costs.place(cost),
                value,
                low,
                high,
                text,
            )
        )
    level = None if base is None else results.place(factor * base)
    unit = "score in %" if share else "score"
    return Plane(tuple(points), costs.ticks, results.ticks, level, unit)


def _is_base(result: Result) -> bool:
    return result.contender.role == "base"


def _ends(result: Result) -> tuple[float, float, float]:
    """Return the lower end, the value and the upper end; the value alone has no interval."""
    mean = result.figures[MEAN]
    low = mean.value if mean.low is None else mean.low
    high = mean.value if mean.high is None else mean.high
    return low, mean.value, high


def _style(result: Result) -> str:
    return STYLES.get(result.contender.role, PLAIN)

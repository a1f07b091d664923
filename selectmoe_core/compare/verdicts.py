"""One sentence for each arm: does it beat random, and how sure is that?"""

from dataclasses import dataclass
from typing import Literal

from selectmoe_core.compare.statistics import Estimate

LEVEL = 0.05
"""Adjusted p-values below it count as a difference."""
Kind = Literal["better", "worse", "no difference", "no verdict"]


@dataclass(frozen=True)
class Verdict:
    """What may be said of an arm.

    Attributes:
        kind: ``better``, ``worse``, ``no difference`` (none that could be measured) or
            ``no verdict``.
        sentence: the same in words, with the figures.
        adjusted: the p-value adjusted for the number of comparisons, where there is one.
    """

    kind: Kind
    sentence: str
    adjusted: float | None


def judge(
    arm: str,
    reference: str,
    plain: float,
    difference: Estimate | None,
    adjusted: float | None,
    *,
    points: bool,
    higher: bool,
    at_chance: bool,
    family: int,
) -> Verdict:
    """Return the verdict on one arm.

    Args:
        arm: its label.
        reference: the label of the arm it is compared with.
        plain: the difference of their results.
        difference: the same with an interval, where the answers to single questions are known.
        adjusted: its p-value, adjusted for the number of comparisons.
        points: results are shares, shown in percentage points.
        higher: more is better.
        at_chance: neither is better than guessing.
        family: the number of comparisons.
    """
    by = _amount(abs(plain), points=points)
    if at_chance:
        said = f"no verdict on {arm}: it and {reference} are at chance"
        return Verdict("no verdict", said, adjusted)
    if difference is None or adjusted is None:
        side = "above" if plain > 0 else "below"
        said = (
            f"no verdict on {arm}: it is {by} {side} {reference}, but without the answers to "
            "single questions there is no interval"
        )
        return Verdict("no verdict", said, adjusted)
    if adjusted >= LEVEL:
        signed = _amount(plain, points=points, sign=True)
        shown = _interval(difference, points=points)
        said = f"{arm}: no measurable difference from {reference} ({signed}, {shown}"
        if not difference.low <= 0 <= difference.high:
            said += f"; not beyond chance among {family} comparisons, adjusted p = {adjusted:.3f}"
        return Verdict("no difference", f"{said})", adjusted)
    # An interval is told in the direction of the sentence.
    shown = _interval(difference, points=points, flip=plain < 0)
    if (plain > 0) == higher:
        return Verdict("better", f"{arm} beats {reference} by {by} ({shown})", adjusted)
    return Verdict("worse", f"{arm} is worse than {reference} by {by} ({shown})", adjusted)


def _amount(value: float, *, points: bool, sign: bool = False) -> str:
    mark = "+" if sign else ""
    return f"{100 * value:{mark}z.1f} points" if points else f"{value:{mark}.4g}"


def _interval(difference: Estimate, *, points: bool, flip: bool = False) -> str:
    ends = (-difference.high, -difference.low) if flip else (difference.low, difference.high)
    low, high = (f"{100 * end:z.1f}" if points else f"{end:.4g}" for end in ends)
    said = f"95 % interval {low} to {high}, "
    if difference.seeds == 1:
        return f"{said}1 seed: the noise of seeds is unknown"
    return f"{said}{difference.seeds} seeds"

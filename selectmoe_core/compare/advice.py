"""What a reader of a comparison asks next: how small a difference is seen, and what to run."""

import shlex
from collections.abc import Iterator

import numpy as np

from selectmoe_core.compare.arms import OUTSIDE
from selectmoe_core.compare.findings import MEAN
from selectmoe_core.compare.summary import Summary, amount
from selectmoe_core.report.next_commands import SEEDS

MORE_SEEDS = 2
"""Further seeds that are proposed."""
SIZES = ("select.", "compare.budget=", "compare.token_budget=")
"""Overrides that say how much is chosen."""


def resolution(summary: Summary) -> str:
    """Return how small a difference the intervals leave visible; empty without intervals."""
    found = [
        one.figures[MEAN].difference
        for one in summary.findings.results
        if one.figures[MEAN].difference is not None and one.contender.role != "base"
    ]
    halves = [(one.high - one.low) / 2 for one in found if one is not None]
    if not halves or found[0] is None:
        return ""
    share = summary.findings.judged[0].share
    unit = " points" if share else ""
    seeds, questions = found[0].seeds, found[0].questions
    return (
        f"With {seeds} seed{'s' if seeds > 1 else ''} and {questions:,} questions the intervals "
        f"reach about {amount(float(np.median(halves)), share=share)}{unit} to either side: "
        "smaller differences cannot be told from noise here"
    )


def next_steps(summary: Summary) -> list[tuple[str, str]]:
    """Return questions that a reader may have, each with the command that answers it."""
    return list(_next_steps(summary))


def _next_steps(summary: Summary) -> Iterator[tuple[str, str]]:
    try:
        words = shlex.split(summary.command)
    except ValueError:
        return
    if "compare" not in words[:2] or not summary.seeds:
        return
    rest = [word for word in words if not word.startswith(SEEDS)]
    open_ones = [one for one in summary.verdicts if one.kind == "no difference"]
    if open_ones:
        more = [*summary.seeds, *_unused(summary.seeds)]
        seeds = f"seed=[{','.join(map(str, more))}]"
        yield (
            "Would more seeds decide? What is made already is reused",
            shlex.join([*rest, seeds]),
        )
    if not any(word.startswith(SIZES) for word in words) and (kept := _kept(summary)):
        grid = f"compare.budget=[{kept},{2 * kept}]"
        yield "Does it hold with more data?", shlex.join([*words, grid])


def _unused(seeds: tuple[int, ...]) -> list[int]:
    return [max(seeds) + number for number in range(1, MORE_SEEDS + 1)]


def _kept(summary: Summary) -> int | None:
    """Return how many examples every arm has; ``None`` where they differ, as by tokens."""
    kept = {
        summary.costs[one.contender.label].kept
        for one in summary.findings.results
        if one.contender.role not in OUTSIDE and one.contender.label in summary.costs
    }
    only = kept.pop() if len(kept) == 1 else None
    return round(only) if only else None

"""How far a score agrees with labels that people gave: arrays in, numbers with intervals out.

Intervals are percentiles of a bootstrap over prompts: rows that answer one prompt are drawn
together, because they are not independent. A row without a score (NaN) ranks below every other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

REPEATS = 1000
LEVEL = 0.95
ALIKE = 1.2
"""The largest ratio of the lengths of two answers that count as equally long."""


@dataclass(frozen=True)
class Agreement:
    """A measure with its interval.

    Attributes:
        value: the measure; NaN if there is nothing to measure.
        low: the lower end of the 95 % interval.
        high: the upper end.
        count: the rows or pairs that it is made of.
        prompts: the prompts that these belong to.
    """

    value: float
    low: float
    high: float
    count: int
    prompts: int


def ranked(score: np.ndarray) -> np.ndarray:
    """Return codes in the order of the scores, equal for equal scores, int64 ``[rows]``."""
    filled = np.where(np.isfinite(score), score, -np.inf)
    return np.asarray(np.unique(filled, return_inverse=True)[1])


def pairs_within(value: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Return all pairs of rows of one prompt whose labels differ, the better first, ``[pairs, 2]``.

    Args:
        value: the label of each row as a number, higher is better.
        prompts: the prompt of each row, int ``[rows]``.
    """
    found: list[np.ndarray] = [np.empty((0, 2), dtype=np.int64)]
    order = np.argsort(prompts, kind="stable")
    starts = np.flatnonzero(np.diff(prompts[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        better, worse = np.nonzero(value[rows][:, None] > value[rows][None, :])
        found.append(np.column_stack([rows[better], rows[worse]]))
    return np.concatenate(found)


def alike(pairs: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return the pairs whose answers are about equally long, ``[pairs, 2]``."""
    sizes = np.maximum(length[pairs], 1.0)
    return np.asarray(pairs[sizes.max(axis=1) <= ALIKE * sizes.min(axis=1)])


def right(score: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return 1 for each pair whose better row scores higher, 0 for lower, one half for a tie."""
    codes = ranked(score)[pairs]
    return np.asarray((np.sign(codes[:, 0] - codes[:, 1]) + 1) / 2)


Measure = Callable[[np.ndarray], float]
"""Returns a figure of items that have these weights, ``[items]``."""


def of_pairs(score: np.ndarray, pairs: np.ndarray) -> Measure:
    """Return what measures the share of pairs whose better row scores higher; ties count half."""
    found = right(score, pairs)

    def accuracy(weights: np.ndarray) -> float:
        total = weights.sum()
        return float(weights @ found / total) if total else float("nan")

    return accuracy


def of_area(score: np.ndarray, good: np.ndarray) -> Measure:
    """Return what measures the AUROC of good over bad rows."""
    codes = ranked(score)

    def auroc(weights: np.ndarray) -> float:
        ours, theirs = np.bincount(codes, weights * good), np.bincount(codes, weights * ~good)
        total = ours.sum() * theirs.sum()
        below = np.cumsum(theirs) - theirs / 2
        return float(ours @ below / total) if total else float("nan")

    return auroc


def of_ranks(score: np.ndarray, grade: np.ndarray) -> Measure:
    """Return what measures Spearman's rank correlation of a score and a grade."""
    codes = (ranked(score), ranked(grade))

    def spearman(weights: np.ndarray) -> float:
        one, other = (_midranks(code, weights) for code in codes)
        total = weights.sum()
        one, other = one - weights @ one / total, other - weights @ other / total
        scale = np.sqrt((weights @ one**2) * (weights @ other**2))
        return float(weights @ (one * other) / scale) if scale else float("nan")

    return spearman


def pair_accuracy(score: np.ndarray, pairs: np.ndarray, prompts: np.ndarray) -> Agreement:
    """Return the share of pairs whose better row scores higher; ties count half.

    Args:
        score: ``[rows]``, NaN for none.
        pairs: positions of the better and the worse row, ``[pairs, 2]``.
        prompts: the prompt of each row, int ``[rows]``.
    """
    return with_interval(of_pairs(score, pairs), prompts[pairs[:, 0]])


def area(score: np.ndarray, good: np.ndarray, prompts: np.ndarray) -> Agreement:
    """Return the AUROC of good over bad rows.

    Args:
        score: ``[rows]``, NaN for none.
        good: bool ``[rows]``.
        prompts: the prompt of each row, int ``[rows]``.
    """
    return with_interval(of_area(score, good), prompts)


def _midranks(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    sums = np.bincount(codes, weights)
    return np.asarray((np.cumsum(sums) - sums / 2)[codes])


def with_interval(measure: Measure, groups: np.ndarray, seed: int = 0) -> Agreement:
    """Return a measure of items, and its interval over draws of groups with replacement.

    Args:
        measure: of weighted items.
        groups: the group of each item, int ``[items]``.
        seed: of the draws: measures of the same groups are compared on the same draws.
    """
    count = len(groups)
    if not count:
        return Agreement(float("nan"), float("nan"), float("nan"), 0, 0)
    _, codes = np.unique(groups, return_inverse=True)
    number = int(codes.max()) + 1
    values = np.array([measure(times[codes]) for times in _draws(number, seed)])
    values = values[np.isfinite(values)]
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(values, tails) if len(values) else (float("nan"), float("nan"))
    return Agreement(measure(np.ones(count)), float(low), float(high), count, number)


def _draws(groups: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each group was drawn, with replacement, ``[groups]``."""
    random = np.random.default_rng(seed)
    for _ in range(REPEATS):
        drawn = random.integers(groups, size=groups)
        yield np.bincount(drawn, minlength=groups).astype(np.float64)

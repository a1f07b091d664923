"""Paired bootstrap: differences between arms that answered the same questions.

An arm is an array ``[seeds, items]``: what each item (a held-out example, a question) came to after
training with each seed. Seeds are averaged, items are resampled, the same ones for every arm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its 95 % percentile interval."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=8)
def shares(items: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Return each item's share of each resample, ``[resamples, items]``; rows add up to 1."""
    random = np.random.default_rng(seed)
    return random.multinomial(items, np.full(items, 1 / items), size=resamples) / items


def mean(arm: np.ndarray) -> Interval:
    """Return the arm's mean over items."""
    return _figure(lambda weight: weight @ arm.mean(axis=0), arm.shape[1])


def difference(arm: np.ndarray, other: np.ndarray) -> Interval:
    """Return the mean of ``arm - other`` over items.

    Raises:
        ValueError: they have not the same items.
    """
    apart = _apart(arm, other)
    return _figure(lambda weight: weight @ apart, len(apart))


def share_of_gain(arm: np.ndarray, baseline: np.ndarray, ceiling: np.ndarray) -> Interval:
    """Return how much of the ceiling's distance from the baseline the arm covers; 1 is all of it.

    Where the ceiling's own distance is not clear of zero, the bounds are far apart or not finite.
    """
    won, possible = _apart(arm, baseline), _apart(ceiling, baseline)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _figure(lambda weight: (weight @ won) / (weight @ possible), len(won))


def weighted(arm: np.ndarray, other: np.ndarray | None, weight_of: np.ndarray) -> Interval:
    """Return the weighted mean of an arm, or of its difference from another.

    Args:
        arm: ``[seeds, items]``.
        other: the same, or ``None``.
        weight_of: each item's weight, ``[items]``: its tokens, say.
    """
    values = (arm.mean(axis=0) if other is None else _apart(arm, other)) * weight_of
    return _figure(lambda weight: (weight @ values) / (weight @ weight_of), len(values))


def _apart(arm: np.ndarray, other: np.ndarray) -> np.ndarray:
    if arm.shape[1] != other.shape[1]:
        raise ValueError(f"{arm.shape[1]} items cannot be paired with {other.shape[1]}")
    return np.asarray(arm.mean(axis=0) - other.mean(axis=0))


def _figure(statistic: Callable[[np.ndarray], np.ndarray], items: int) -> Interval:
    """Return a statistic of the items' weights with its percentile interval."""
    resampled = statistic(shares(items))
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [outside, 1 - outside])
    return Interval(float(statistic(np.full(items, 1 / items))), float(low), float(high))

"""The best of very many scores, without sorting what is not kept. Pure functions on arrays."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

Ids = Callable[[np.ndarray], np.ndarray]
"""Gives the ids of sorted positions, two uint64 words each, ``[positions, 2]``; for ties alone."""


def top(values: np.ndarray, count: int, ids: Ids) -> np.ndarray:
    """Return the sorted positions of the ``count`` largest values.

    Args:
        values: ``[rows]`` without NaN.
        count: at most ``rows``.
        ids: of equal values the smaller id is taken.
    """
    if count >= len(values):
        return np.arange(len(values))
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    edge = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > edge)
    level = np.flatnonzero(values == edge)
    missing = count - len(above)
    if missing < len(level):
        level = level[_smallest(ids(level), missing)]
    return np.sort(np.concatenate([above, level]))


def _smallest(words: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the ``count`` smallest ids, in any order; ``count`` is at least 1."""
    high = words[:, 0]
    edge = np.partition(high, count - 1)[count - 1]
    below = np.flatnonzero(high < edge)
    level = np.flatnonzero(high == edge)  # one, unless 64 bits of two ids agree
    order = np.argsort(words[level, 1])
    return np.concatenate([below, level[order[: count - len(below)]]])


def best_first(values: np.ndarray, ids: Ids) -> np.ndarray:
    """Return the order of values from large to small, equal ones by id.

    Args:
        values: ``[rows]`` without NaN.
        ids: asked for the rows whose value another row has too.
    """
    order = np.argsort(-values)
    ranked = values[order]
    same = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):
        rows = np.sort(order[tied])
        order[tied] = rows[_by_value_and_id(values[rows], ids(rows))]
    return order


def _by_value_and_id(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    high = words[:, 0]
    order = np.argsort(high)
    order = order[np.argsort(-values[order], kind="stable")]
    same = (np.diff(values[order]) == 0) & (np.diff(high[order]) == 0)
    if same.any():  # 64 bits of two ids agree: look at the other 64 too
        return np.lexsort((words[:, 1], high, -values))
    return order


def share_of(fraction: float, count: int) -> int:
    """Return ``fraction`` of ``count`` rounded up, by the decimal that was written.

    In floating point 0.07 of 100 would be a little more than 7, and rounded up 8.
    """
    return -int(-Fraction(repr(fraction)) * count // 1)


def split(total: int, sizes: np.ndarray) -> np.ndarray:
    """Return how many of ``total`` fall to each size, in proportion: largest remainder (Hamilton).

    Equal remainders go to the group that stands first. No group gets more than its size.

    Args:
        total: at most the sum of the sizes.
        sizes: int64 ``[groups]``.
    """
    whole = int(sizes.sum())
    if not whole:
        return np.zeros(len(sizes), dtype=np.int64)
    exact = [total * int(size) for size in sizes]
    floors = np.array([part // whole for part in exact], dtype=np.int64)
    remainders = np.array([part % whole for part in exact], dtype=np.float64)
    given = np.argsort(-remainders, kind="stable")[: total - int(floors.sum())]
    floors[given] += 1
    return floors

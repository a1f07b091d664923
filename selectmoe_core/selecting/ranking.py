"""Finding the best of very many scores without sorting all of them. Pure functions on arrays."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

BLOCK = 1 << 20
"""Rows that are processed together; temporary arrays stay small compared with the scores."""

Ids = Callable[[np.ndarray], np.ndarray]
"""Returns the ids of sorted positions, two uint64 words each, ``[positions, 2]``; for ties."""


def top_of_groups(
    values: np.ndarray, codes: np.ndarray, counts: np.ndarray, ids: Ids
) -> np.ndarray:
    """Return the sorted positions of the largest values of each group; ``counts`` says how many.

    Args:
        values: ``[rows]``; NaN excludes a row.
        codes: the group of each row, ``[rows]``.
        counts: int64 ``[groups]``; a group with fewer values returns all of them.
        ids: of equal values the smaller id is taken; called once, for ties at the groups' limits.
    """
    edges, missing = _edges(values, codes, counts)
    above, level = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        edge = edges[codes[start : start + BLOCK]]
        above.append(start + np.flatnonzero(block > edge))
        level.append(start + np.flatnonzero(block == edge))
    tied = np.concatenate(level)
    chosen = _of_ties(codes[tied], missing, lambda places: ids(tied[places]))
    return np.sort(np.concatenate([*above, tied[chosen]]))


def _edges(
    values: np.ndarray, codes: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest value that each group keeps, and how many of that value it keeps."""
    grouped, starts = _grouped(values, codes, len(counts))
    edges = np.full(len(counts), np.inf)
    missing = np.zeros(len(counts), dtype=np.int64)
    for group, count in enumerate(counts.tolist()):
        own = grouped[starts[group] : starts[group + 1]]
        kept = min(count, len(own))
        if kept:
            own.partition(len(own) - kept)
            edges[group] = own[len(own) - kept]
            missing[group] = np.count_nonzero(own[len(own) - kept :] == edges[group])
    return edges, missing


def _grouped(values: np.ndarray, codes: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that are not NaN, group by group, and where each group starts."""
    small = np.min_scalar_type(max(groups - 1, 0))
    sizes = np.zeros(groups, dtype=np.int64)
    for start in range(0, len(values), BLOCK):
        there = ~np.isnan(values[start : start + BLOCK])
        sizes += np.bincount(codes[start : start + BLOCK][there], minlength=groups)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    grouped = np.empty(int(starts[-1]))
    filled = starts[:-1].copy()
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        there = ~np.isnan(block)
        own = codes[start : start + BLOCK][there]
        # A stable sort of 16-bit integers is a radix sort, which takes one pass.
        order = np.argsort(own.astype(small), kind="stable")
        counts = np.bincount(own, minlength=groups)
        before = np.cumsum(counts) - counts
        places = np.arange(len(own)) + np.repeat(filled - before, counts)
        grouped[places] = block[there][order]
        filled += counts
    return grouped, starts


def _of_ties(codes: np.ndarray, missing: np.ndarray, ids: Ids) -> np.ndarray:
    """Return the positions of kept ties: the ``missing`` smallest ids of each group."""
    there = np.bincount(codes, minlength=len(missing))
    whole = (there <= missing)[codes]
    partly = np.flatnonzero(~whole)
    kept = [np.flatnonzero(whole)]
    if len(partly):
        order = partly[_by_group_and_id(codes[partly], ids(partly))]
        own = codes[order]
        counts = np.bincount(own, minlength=len(missing))
        rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[own]
        kept.append(order[rank < missing[own]])
    return np.concatenate(kept)


def best_first(values: np.ndarray, ids: Ids) -> np.ndarray:
    """Return the order of values from large to small, equal ones by id.

    Args:
        values: ``[rows]`` without NaN.
        ids: called for rows whose value another row has too.
    """
    order = np.argsort(-values)
    ranked = values[order]
    same = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):
        rows, level = order[tied], ranked[tied]
        group = np.cumsum(np.append(True, level[1:] != level[:-1]))
        wanted = np.zeros(len(values), dtype=bool)
        wanted[rows] = True
        place = np.cumsum(wanted) - 1
        words = ids(np.flatnonzero(wanted)).take(place[rows], axis=0)
        order[tied] = rows[_by_group_and_id(group, words)]
    return order


def _by_group_and_id(group: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the order by group, and within a group by id.

    Sorts once by the group and as much of the id as fits with it into 64 bits.
    """
    bits = np.uint64(max(int(group.max(initial=0)).bit_length(), 1))
    key = (group.astype(np.uint64) << (np.uint64(64) - bits)) | (words[:, 0] >> bits)
    order = np.argsort(key)
    if (np.diff(key[order]) == 0).any():  # these parts of two ids are equal: use whole ids
        return np.lexsort((words[:, 1], words[:, 0], group))
    return order


def share_of(fraction: float, count: int) -> int:
    """Return ``fraction`` of ``count`` rounded up, using the exact decimal number.

    In floating point 0.07 of 100 would be a little more than 7, and rounded up 8.
    """
    return -int(-Fraction(repr(fraction)) * count // 1)

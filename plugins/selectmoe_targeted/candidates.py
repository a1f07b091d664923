"""The rows that are most similar to each target, best first, from one pass over the pool."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from selectmoe_core.selecting import best_first
from selectmoe_targeted.sources import NOTHING, Similarities

SAMPLE = 16384
"""Rows from which the thresholds are estimated."""
LEAST = 8
"""Rows of the sample that are above a threshold, at least: fewer would be a poor estimate."""


def thresholds(
    source: Similarities, used: np.ndarray, task_of: np.ndarray, wanted: np.ndarray
) -> Tensor:
    """Return the similarity that about as many rows reach as each target wants.

    Args:
        source: the similarities.
        used: bool ``[tasks, rows]``: rows that no target of a task may get.
        task_of: the task of each target.
        wanted: how many rows each target wants, ``[targets]``; 0 for a target that wants none.
    """
    count = min(SAMPLE, source.rows)
    rows = np.linspace(0, source.rows - 1, count).astype(np.int64)
    similarities = source.some(rows)
    similarities = similarities.masked_fill(_mask(used[:, rows][task_of], similarities), NOTHING)
    sorted_down = similarities.sort(dim=0, descending=True).values
    places = np.maximum(np.ceil(wanted * count / source.rows).astype(np.int64), LEAST)
    found = sorted_down[
        torch.from_numpy(np.minimum(places, count - 1)).to(similarities.device),
        torch.arange(len(wanted), device=similarities.device),
    ]
    everything = torch.from_numpy((places >= count) | (wanted >= source.rows))
    found = torch.where(everything.to(found.device), NOTHING, found)
    return torch.where(torch.from_numpy(wanted > 0).to(found.device), found, torch.inf)


def _mask(used: np.ndarray, like: Tensor) -> Tensor:
    """Return ``used`` as ``[rows, targets]`` on the device of a block."""
    return torch.from_numpy(np.ascontiguousarray(used.T)).to(like.device)


class Candidates:
    """Collects, for each target, every unused row that reaches its threshold.

    All of these rows are there, so a list is the beginning of the target's whole ranking.

    Args:
        limits: the thresholds, ``[targets]``.
        task_of: the task of each target.
        used: bool ``[tasks, rows]``: rows that no target of a task may get.
        ids: of all rows, two words each: equal similarities go by them.
    """

    def __init__(
        self, limits: Tensor, task_of: np.ndarray, used: np.ndarray, ids: np.ndarray
    ) -> None:
        self._limits = limits
        self._task_of = task_of
        self._used = used
        self._ids = ids
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, first: int, block: Tensor) -> None:
        """Take the rows of a block of similarities ``[rows, targets]``."""
        rows, targets = torch.nonzero((block >= self._limits) & (block > NOTHING), as_tuple=True)
        values = block[rows, targets].cpu().numpy()
        places, columns = first + rows.cpu().numpy(), targets.cpu().numpy()
        free = ~self._used[self._task_of[columns], places]
        kind = np.int32 if len(self._ids) < 1 << 31 else np.int64
        self._found.append(
            (columns[free].astype(np.int32), values[free], places[free].astype(kind))
        )

    def lists(self) -> list[np.ndarray]:
        """Return the rows of each target, the most similar first."""
        columns, values, rows = (np.concatenate(part) for part in zip(*self._found, strict=True))
        self._found.clear()
        order = np.argsort(columns, kind="stable")
        ends = np.searchsorted(columns[order], np.arange(len(self._task_of) + 1))
        values, rows = values[order], rows[order]
        return [
            by_similarity(values[start:stop], rows[start:stop], self._ids)
            for start, stop in pairwise(ends.tolist())
        ]


def by_similarity(values: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return rows of the pool, the most similar first; equal ones go by id.

    Args:
        values: the similarity of each row.
        rows: positions in the pool.
        ids: two words for each row of the pool.
    """
    return np.asarray(rows[best_first(values, lambda places: ids[rows[places]])])


def tasks_of(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the tasks in the order of their first example, and the task of each example."""
    tasks = tuple(dict.fromkeys(names))
    return tasks, np.array([tasks.index(name) for name in names], dtype=np.int64)

"""From similarities to scores: per task, and for all tasks together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selectmoe_core import Advance
from selectmoe_targeted.candidates import Candidates, by_similarity, thresholds
from selectmoe_targeted.config import TargetedConfig
from selectmoe_targeted.sources import NOTHING, Similarities
from selectmoe_targeted.turns import Turns, round_robin

LISTED = 32
"""Rows that a target's list holds for each row that it is to take: others take some of them."""
MOST_LISTED = 48_000_000
"""Rows of all lists together: about half a GiB."""


@dataclass(frozen=True)
class Tasks:
    """The target tasks.

    Attributes:
        names: their names.
        task_of: the task of each target example, int64 ``[targets]``.
    """

    names: tuple[str, ...]
    task_of: np.ndarray


@dataclass(frozen=True)
class Found:
    """What the pool's rows get.

    Attributes:
        score: float64 ``[rows]``, NaN where there is nothing to compare.
        by_task: float64 ``[tasks, rows]``.
        nearest: the most similar target example, int64 ``[rows]``.
        similarity: to that example, float32 ``[rows]``.
    """

    score: np.ndarray
    by_task: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray


def rank(
    source: Similarities,
    tasks: Tasks,
    config: TargetedConfig,
    ids: np.ndarray,
    progress: Callable[[str], Advance],
) -> Found:
    """Return the scores of all rows.

    Args:
        source: the similarities.
        tasks: the target tasks.
        config: the options.
        ids: of all rows, two words each.
        progress: opens a bar by its name, and returns what moves it by rows.
    """
    most = max(1, round(config.depth * source.rows))
    state = _State.of(source, tasks) if config.per_task == "ranks" else None
    candidates = state.candidates(source, tasks, most, ids) if state else None
    values, nearest, similarity = _compared(source, tasks, config, candidates, progress("compare"))
    there = similarity > NOTHING
    if state is None:
        values[:, ~there] = np.nan
        return Found(values.max(axis=0), values, nearest, similarity)
    while candidates is not None:
        state.go_on(candidates.lists(), most)
        candidates = state.candidates(source, tasks, most, ids)
        if candidates is not None:
            advance = progress("compare again")
            for first, block in source.blocks():
                candidates.add(first, block)
                advance(len(block))
    return _ranked(state, values, nearest, similarity, (ids, most))


class _State:
    """The turns of all tasks."""

    def __init__(self, used: np.ndarray, turns: list[Turns]) -> None:
        self.used = used
        self.turns = turns

    @classmethod
    def of(cls, source: Similarities, tasks: Tasks) -> "_State":
        used = np.zeros((len(tasks.names), source.rows), dtype=bool)
        takers = [
            np.flatnonzero((tasks.task_of == task) & ~source.empty).tolist()
            for task in range(len(tasks.names))
        ]
        return cls(used, [Turns(own, some) for own, some in zip(used, takers, strict=True)])

    def go_on(self, lists: list[np.ndarray], most: int) -> None:
        for turns in self.turns:
            before = len(turns.taken)
            turns.go_on(lists, most)
            if len(turns.taken) == before:  # nothing is left that can be compared
                turns.takers = ()

    def candidates(
        self, source: Similarities, tasks: Tasks, most: int, ids: np.ndarray
    ) -> Candidates | None:
        """Return a collector for the lists that are still needed, or ``None``."""
        wanted = np.zeros(len(tasks.task_of), dtype=np.int64)
        for turns in self.turns:
            if turns.takers and len(turns.taken) < most:
                each = LISTED * -(-(most - len(turns.taken)) // len(turns.takers))
                wanted[list(turns.takers)] = max(each, 2 * LISTED)
        if not wanted.any():
            return None
        wanted = np.minimum(wanted, max(2 * LISTED, MOST_LISTED // int((wanted > 0).sum())))
        limits = thresholds(source, self.used, tasks.task_of, wanted)
        return Candidates(limits, tasks.task_of, self.used, ids)


def _compared(
    source: Similarities,
    tasks: Tasks,
    config: TargetedConfig,
    candidates: Candidates | None,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each task's value of each row, the nearest target and the similarity to it."""
    values = np.empty((len(tasks.names), source.rows))
    nearest = np.empty(source.rows, dtype=np.int64)
    similarity = np.empty(source.rows, dtype=np.float32)
    members = [np.flatnonzero(tasks.task_of == task) for task in range(len(tasks.names))]
    members = [own[~source.empty[own]] for own in members]
    for first, block in source.blocks():
        stop = first + len(block)
        if candidates is not None:
            candidates.add(first, block)
        for task, own in enumerate(members):
            values[task, first:stop] = _reduced(block, own, config.per_task).cpu().numpy()
        best = block.max(dim=1)
        nearest[first:stop] = best.indices.cpu().numpy()
        similarity[first:stop] = best.values.cpu().numpy()
        advance(len(block))
    return values, nearest, similarity


def _reduced(block: Tensor, targets: np.ndarray, per_task: str) -> Tensor:
    some = block if len(targets) == block.shape[1] else block[:, torch.from_numpy(targets)]
    return some.mean(dim=1) if per_task == "mean" else some.amax(dim=1)


def _ranked(
    state: _State,
    values: np.ndarray,
    nearest: np.ndarray,
    similarity: np.ndarray,
    given: tuple[np.ndarray, int],
) -> Found:
    """Turn what was taken into scores: 1 for the row taken first, 0 for none."""
    ids, most = given
    orders = [
        _whole_order(np.array(turns.taken, dtype=np.int64), own, ids)
        for turns, own in zip(state.turns, values, strict=True)
    ]
    by_task = np.stack([_by_place(order) for order in orders])
    if len(orders) == 1:
        together = orders[0]
    else:
        together = _whole_order(round_robin(orders, most), by_task.max(axis=0), ids)
    there = similarity > NOTHING
    by_task[:, ~there] = np.nan
    return Found(np.where(there, _by_place(together), np.nan), by_task, nearest, similarity)


def _whole_order(taken: np.ndarray, values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return all rows: those taken, then the others by their values."""
    left = np.ones(len(values), dtype=bool)
    left[taken] = False
    others = np.flatnonzero(left)
    return np.concatenate([taken, by_similarity(values[others], others, ids)])


def _by_place(order: np.ndarray) -> np.ndarray:
    """Return the score of each row: the first of an order has 1, the last 1 / rows."""
    score = np.empty(len(order))
    score[order] = 1 - np.arange(len(order)) / len(order)
    return score

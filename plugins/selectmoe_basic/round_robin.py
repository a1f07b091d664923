"""Target tasks take turns: each takes its best example that is still there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from selectmoe_basic.config import RoundRobinConfig
from selectmoe_core import Job, ScoreTable, Selection, StageError, suggest
from selectmoe_core.selecting import Chosen, best_first, choose_divided

TASK = "task:"
"""The beginning of the names of details that are scores for a target task."""


@dataclass(frozen=True)
class Turns:
    """Who took what, in the order of taking.

    Attributes:
        places: positions of what was taken, int64 ``[taken]``.
        takers: who took it, by number, ``[taken]``.
        turns: in which turn, from 0, ``[taken]``.
        ranks: its rank in the taker's own order, from 1, ``[taken]``.
    """

    places: np.ndarray
    takers: np.ndarray
    turns: np.ndarray
    ranks: np.ndarray


class RoundRobin:
    """Lets tasks take turns; see ``RoundRobinConfig``."""

    def __init__(self, config: RoundRobinConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return the rows in the order in which the tasks took them.

        Group: the task that took a row, or with ``per = "source"`` its source. Reason: the task,
        and the row's rank among those that the task chose from.

        Raises:
            StageError: the score has no target tasks, or not one that is named.
        """
        tasks = self._tasks(scores)
        names = list(tasks)

        def choose(rows: np.ndarray, count: int) -> Chosen:
            # A task passes over fewer than `count` rows that others took.
            orders = [_best(values, rows, scores)[:count] for values in tasks.values()]
            found = take_turns(orders, count)
            took = [names[taker] for taker in found.takers]
            reasons = [
                f"no. {rank:,} by {name}"
                for name, rank in zip(took, found.ranks.tolist(), strict=True)
            ]
            return Chosen(found.places, found.turns, {"group": took, "reason": reasons})

        return choose_divided(scores, self.config, choose)

    def _tasks(self, scores: ScoreTable) -> Mapping[str, np.ndarray]:
        known = [name.removeprefix(TASK) for name in scores.details if name.startswith(TASK)]
        if not known:
            raise StageError(
                "round-robin needs a score for each target task, and this score has none",
                hint="score by similarity to [targets], or use top-k in [select]",
            )
        for name in self.config.tasks:
            if name not in known:
                hint = suggest(name, known, otherwise="the target tasks are")
                raise StageError(f"tasks names '{name}', which the score does not have", hint=hint)
        return {name: scores.detail(TASK + name) for name in self.config.tasks or sorted(known)}


def _best(values: np.ndarray, rows: np.ndarray, scores: ScoreTable) -> np.ndarray:
    """Return the rows that have a value, the best first, equal ones by id."""
    own = np.sort(rows[np.isfinite(values[rows])])
    return np.asarray(own[best_first(values[own], lambda places: scores.ids(own[places]))])


def take_turns(orders: list[np.ndarray], count: int) -> Turns:
    """Let takers take turns, each its first place that is not taken, until there are ``count``.

    Args:
        orders: for each taker the places that it wants, the best first.
        count: how many are taken; fewer if no taker wants any that is left.
    """
    wanted = [order.tolist() for order in orders]
    next_place = [0] * len(wanted)
    taken: set[int] = set()
    found: list[tuple[int, int, int, int]] = []
    turn = 0
    while len(found) < count and any(map(len, wanted)):
        for taker, own in enumerate(wanted):
            place = next_place[taker]
            while place < len(own) and own[place] in taken:
                place += 1
            next_place[taker] = place + 1
            if place >= len(own):
                wanted[taker] = []
            elif len(found) < count:
                taken.add(own[place])
                found.append((own[place], taker, turn, place + 1))
        turn += 1
    columns = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return Turns(*columns)

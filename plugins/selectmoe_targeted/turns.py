"""Round robin: those who choose take turns, each takes the best row that is left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LOOK = 64
"""Rows of a list that are looked at together."""


@dataclass
class Turns:
    """The rows that one task's examples have taken so far.

    Attributes:
        used: which rows are taken, bool ``[rows]``.
        takers: the targets that take turns, in order.
        taken: the taken rows in order.
    """

    used: np.ndarray
    takers: Sequence[int]
    taken: list[int] = field(default_factory=list)

    def go_on(self, lists: Sequence[np.ndarray], most: int) -> None:
        """Take turns until so many rows are taken, or the list of the next taker has ended.

        Args:
            lists: for each target the best unused rows in order: the beginning of all of them.
            most: rows to take in all.
        """
        places = dict.fromkeys(self.takers, 0)
        while len(self.taken) < most:
            taker = self.takers[len(self.taken) % len(self.takers)]
            place = first_free(lists[taker], places[taker], self.used)
            if place is None:
                return
            row = int(lists[taker][place])
            self.used[row] = True
            self.taken.append(row)
            places[taker] = place + 1


def first_free(rows: np.ndarray, place: int, used: np.ndarray) -> int | None:
    """Return the first place from ``place`` on whose row is not used, or ``None``."""
    while place < len(rows):
        some = used[rows[place : place + LOOK]]
        found = int(some.argmin())
        if not some[found]:
            return place + found
        place += len(some)
    return None


def round_robin(orders: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Return rows taken in turns from whole orders, each the best that is left of its order.

    Args:
        orders: permutations of all rows, best first.
        most: rows to take.
    """
    used = np.zeros(len(orders[0]), dtype=bool)
    turns = Turns(used, range(len(orders)))
    turns.go_on(orders, min(most, len(used)))
    return np.array(turns.taken, dtype=np.int64)

"""Score first, then a smallest distance between what is kept (DEITA's Repr Filter)."""

import numpy as np

from selectmoe_core import Job, ScoreTable, Selection
from selectmoe_core.selecting import Chosen, choose_divided
from selectmoe_diverse.config import KCenterConfig
from selectmoe_diverse.opening import vectors_of
from selectmoe_diverse.rows import Rows, unit

BLOCK = 1024
"""Rows that are compared together, with those kept before and with each other."""
KEPT = 8192
"""Kept rows that a block is compared with at once."""


class KCenter:
    """Keeps good rows that are not too similar; see ``KCenterConfig``."""

    def __init__(self, config: KCenterConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:
        """Return the rows, the best first; fewer than ``k`` if no more are dissimilar enough.

        Reason: how many better rows were left out as too similar before it.
        """
        vectors = vectors_of(job, scores)

        def choose(rows: np.ndarray, count: int) -> Chosen:
            places = far_apart(vectors, rows, count, self.config.threshold)
            skipped = places - np.arange(len(places))
            reasons = [f"{number:,} better ones left out as too similar" for number in skipped]
            return Chosen(rows[places], np.zeros(len(places), np.int64), {"reason": reasons})

        return choose_divided(scores, self.config, choose)


def far_apart(vectors: Rows, rows: np.ndarray, count: int, threshold: float) -> np.ndarray:
    """Return the places among ``rows`` of those that are kept, in order, at most ``count``.

    A row is kept if its cosine similarity to each row kept before it is below the threshold.
    Memory holds the kept vectors in fp32, and two blocks.
    """
    kept = np.empty((min(count, len(rows)), vectors.width), dtype=np.float32)
    found: list[int] = []
    for start in range(0, len(rows), BLOCK):
        block = unit(vectors.take(rows[start : start + BLOCK]))
        alive = np.arange(len(block))
        for first in range(0, len(found), KEPT):
            others = kept[first : min(first + KEPT, len(found))]
            similar = block[alive] @ others.T
            alive = alive[similar.max(axis=1) < threshold]
            if not len(alive):
                break
        for place in _apart(block[alive], threshold).tolist():
            kept[len(found)] = block[alive[place]]
            found.append(start + int(alive[place]))
            if len(found) == count:
                return np.array(found, dtype=np.int64)
    return np.array(found, dtype=np.int64)


def _apart(block: np.ndarray, threshold: float) -> np.ndarray:
    """Return the rows of a block that are kept when it is gone through from the first on."""
    similar = block @ block.T
    alive = np.ones(len(block), dtype=bool)
    for place in range(len(block)):
        if alive[place]:
            alive[place + 1 :] &= similar[place, place + 1 :] < threshold
    return np.flatnonzero(alive)

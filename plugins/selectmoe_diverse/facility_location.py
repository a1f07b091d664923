"""Coverage of the pool by what is kept, with a weight for scores: lazy greedy."""

import heapq

import numpy as np

from selectmoe_core import Job, ScoreTable, Selection
from selectmoe_core.selecting import Chosen, choose_divided
from selectmoe_diverse.config import FacilityLocationConfig
from selectmoe_diverse.opening import vectors_of
from selectmoe_diverse.rows import Rows, drawn, unit

BLOCK = 2048
"""Candidates compared with the sample together."""
DIGITS = 4
"""Decimals of a gain, in similarities of one example. Two rows that cover each other have equal
gains, and rounding must not decide between them."""
AGAIN = 64
"""Candidates whose gains are computed again together: the vectors of the sample are read once."""


class FacilityLocation:
    """Keeps rows that cover the pool; see ``FacilityLocationConfig``."""

    def __init__(self, config: FacilityLocationConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:
        """Return the rows in the order in which they were taken.

        Reason: the coverage of the pool by this row and those before it.
        """
        vectors = vectors_of(job, scores)

        def choose(rows: np.ndarray, count: int) -> Chosen:
            sample = drawn(scores, np.sort(rows), self.config.sample, job.seed)
            offered = rows[: max(self.config.candidates or len(rows), count)]
            quality = 1 - (np.arange(len(offered)) + 0.5) / len(rows)
            places, covered = greedy(
                vectors, offered, unit(vectors.take(sample)), quality, self.config.quality, count
            )
            reasons = [f"coverage {100 * share:.1f} %" for share in covered.tolist()]
            return Chosen(offered[places], np.arange(len(places)), {"reason": reasons})

        return choose_divided(scores, self.config, choose)


def greedy(
    vectors: Rows,
    rows: np.ndarray,
    ground: np.ndarray,
    quality: np.ndarray,
    weight: float,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows taken, in order, and the coverage after each.

    A gain can only fall as more rows are taken, so that the largest known gain that holds after
    it is computed again is the largest of all (Minoux 1978). The whole matrix of similarities is
    never in memory.

    Args:
        vectors: all vectors.
        rows: the candidates, the best first.
        ground: the sample to cover, of length 1, fp32 ``[sample, width]``.
        quality: of each candidate, from 0 to 1.
        weight: of quality, at least 0 and below 1.
        count: how many to take, at most the candidates.
    """
    best = np.zeros(len(ground), dtype=np.float32)
    bonus = weight * quality / count
    share = (1 - weight) / len(ground)

    def gains(places: np.ndarray) -> np.ndarray:
        similar = unit(vectors.take(rows[places])) @ ground.T
        np.maximum(similar - best, 0, out=similar)
        gained = np.round(similar.sum(axis=1, dtype=np.float64), DIGITS)
        return np.asarray(share * gained + bonus[places])

    heap: list[tuple[float, int]] = []
    for start in range(0, len(rows), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(rows)))
        heap += [(-gain, place) for gain, place in zip(gains(places), places.tolist(), strict=True)]
    heapq.heapify(heap)
    taken: list[int] = []
    covered: list[float] = []
    fresh: dict[int, float] = {}
    while len(taken) < count:
        gain, place = heap[0]
        if taken and fresh.get(place) != gain:
            some = [heapq.heappop(heap)[1] for _ in range(min(AGAIN, len(heap)))]
            now = [-float(value) for value in gains(np.array(some))]
            fresh |= dict(zip(some, now, strict=True))
            for entry in zip(now, some, strict=True):
                heapq.heappush(heap, entry)
            continue
        heapq.heappop(heap)
        taken.append(place)
        similar = (unit(vectors.take(rows[[place]])) @ ground.T)[0]
        np.maximum(best, similar, out=best)
        covered.append(float(best.mean(dtype=np.float64)))
        fresh.clear()
    return np.array(taken, dtype=np.int64), np.array(covered)

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
KEPT_BYTES = 1 << 28
"""Similarities to the sample that are kept: the candidates with the largest gains come again."""


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


class Similar:
    """Similarities of candidates to the sample; those that were used last are kept.

    Args:
        vectors: all vectors.
        rows: the candidates.
        ground: the sample, of length 1, fp32 ``[sample, width]``.
    """

    def __init__(self, vectors: Rows, rows: np.ndarray, ground: np.ndarray) -> None:
        self._vectors = vectors
        self._rows = rows
        self._ground = ground
        self._kept: dict[int, np.ndarray] = {}
        self._room = max(AGAIN, KEPT_BYTES // ground[:, 0].nbytes)

    def compute(self, places: np.ndarray) -> np.ndarray:
        """Return the similarities of some candidates, fp32 ``[candidates, sample]``."""
        return np.asarray(unit(self._vectors.take(self._rows[places])) @ self._ground.T)

    def of(self, places: list[int]) -> np.ndarray:
        """Return the same, and keep them for the next time."""
        new = [place for place in places if place not in self._kept]
        while self._kept and len(self._kept) + len(new) > self._room:
            del self._kept[next(iter(self._kept))]
        new = [place for place in places if place not in self._kept]
        self._kept |= dict(zip(new, self.compute(np.array(new, dtype=np.int64)), strict=True))
        return np.stack([self._kept[place] for place in places])


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
    similar = Similar(vectors, rows, ground)
    best = np.zeros(len(ground), dtype=np.float32)
    bonus = weight * quality / count
    share = (1 - weight) / len(ground)

    def gains(places: np.ndarray, of: np.ndarray) -> list[float]:
        gained = np.maximum(of - best, 0).sum(axis=1, dtype=np.float64)
        found: list[float] = (share * np.round(gained, DIGITS) + bonus[places]).tolist()
        return found

    heap: list[tuple[float, int]] = []
    for start in range(0, len(rows), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(rows)))
        now = gains(places, similar.compute(places))
        heap += [(-gain, place) for gain, place in zip(now, places.tolist(), strict=True)]
    heapq.heapify(heap)
    taken: list[int] = []
    covered: list[float] = []
    fresh: dict[int, float] = {}
    while len(taken) < count:
        gain, place = heap[0]
        if taken and fresh.get(place) != gain:
            some = [heapq.heappop(heap)[1] for _ in range(min(AGAIN, len(heap)))]
            for own, again in zip(gains(np.array(some), similar.of(some)), some, strict=True):
                fresh[again] = -own
                heapq.heappush(heap, (-own, again))
            continue
        heapq.heappop(heap)
        taken.append(place)
        np.maximum(best, similar.of([place])[0], out=best)
        covered.append(float(best.mean(dtype=np.float64)))
        fresh.clear()
    return np.array(taken, dtype=np.int64), np.array(covered)

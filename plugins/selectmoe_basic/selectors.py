"""Selectors that look only at scores, sources and ids."""

import numpy as np
import pyarrow as pa

from selectmoe_basic.config import ThresholdConfig, TopFractionConfig, TopKConfig
from selectmoe_basic.ranking import best_first, share_of, split, top_of_groups
from selectmoe_core import Job, ScoreTable, Selection, StageError


class TopFraction:
    """Keeps the best share; see ``TopFractionConfig``."""

    def __init__(self, config: TopFractionConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return the best ``ceil(fraction * examples)`` rows, or all scored ones if they are fewer.

        With ``per = "source"`` this is done for each source.
        """
        values = scores.score()
        if self.config.per == "none":
            return _best(scores, values, share_of(self.config.fraction, len(values)))
        codes, names = scores.sources()
        sizes = np.bincount(codes, minlength=len(names)).tolist()
        counts = np.array([share_of(self.config.fraction, size) for size in sizes], dtype=np.int64)
        rows = top_of_groups(values, codes, counts, scores.ids)
        return _ranked(scores, values, rows, codes, names)


class TopK:
    """Keeps a number of examples; see ``TopKConfig``."""

    def __init__(self, config: TopKConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return the best ``k`` rows.

        Raises:
            StageError: fewer than ``k`` examples have a score.
        """
        values = scores.score()
        scored = np.isfinite(values)
        k, found = self.config.k, int(scored.sum())
        if k > found:
            raise StageError(
                f"k = {k}, but only {found} of {len(values)} examples have a score",
                hint="lower k, or use top-fraction",
            )
        if self.config.per == "none":
            return _best(scores, values, k)
        codes, names = scores.sources()
        sizes = np.bincount(codes[scored], minlength=len(names))
        # By name, so that ties of remainders do not depend on the order of the pool's files.
        order = np.argsort(np.array(names))
        quota = np.empty(len(names), dtype=np.int64)
        quota[order] = split(k, sizes[order])
        rows = top_of_groups(values, codes, quota, scores.ids)
        return _ranked(scores, values, rows, codes, names)


class Threshold:
    """Keeps examples with scores within bounds; see ``ThresholdConfig``."""

    def __init__(self, config: ThresholdConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return every row whose score, or its distance from its source's mean, is in bounds."""
        values = scores.score()
        if self.config.per == "none":
            return _ranked(scores, values, self._within(values))
        codes, names = scores.sources()
        scored = np.isfinite(values)
        counts = np.bincount(codes[scored], minlength=len(names))
        sums = np.bincount(codes, weights=np.where(scored, values, 0), minlength=len(names))
        means = sums / np.maximum(counts, 1)
        return _ranked(scores, values, self._within(values - means[codes]), codes, names)

    def _within(self, values: np.ndarray) -> np.ndarray:
        inside = np.isfinite(values)
        if self.config.min is not None:
            inside &= values >= self.config.min
        if self.config.max is not None:
            inside &= values <= self.config.max
        return np.flatnonzero(inside)


def _best(scores: ScoreTable, values: np.ndarray, count: int) -> Selection:
    """Return the best ``count`` rows of the whole pool: one group."""
    codes = np.zeros(len(values), dtype=np.uint8)
    rows = top_of_groups(values, codes, np.array([count]), scores.ids)
    return _ranked(scores, values, rows)


def _ranked(
    scores: ScoreTable,
    values: np.ndarray,
    rows: np.ndarray,
    codes: np.ndarray | None = None,
    names: tuple[str, ...] = (),
) -> Selection:
    """Return the sorted ``rows``, the best first, with their source as group if it was used."""
    rows = rows[best_first(values[rows], lambda places: scores.ids(rows[places]))]
    if codes is None:
        return Selection(rows)
    return Selection(rows, pa.DictionaryArray.from_arrays(codes[rows], pa.array(names)))

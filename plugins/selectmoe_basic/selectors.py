"""Selectors that look only at scores, sources and ids."""

from collections.abc import Iterator

import numpy as np

from selectmoe_basic.config import ThresholdConfig, TopFractionConfig, TopKConfig
from selectmoe_basic.ranking import best_first, share_of, split, top
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
            rows = _scored(values)
            count = share_of(self.config.fraction, len(values))
            return _ranked(scores, values, _top(scores, values, rows, count))
        codes, names = scores.sources()
        of_source = np.bincount(codes, minlength=len(names))
        kept = [
            _top(scores, values, rows, share_of(self.config.fraction, int(of_source[code])))
            for code, rows in _by_source(codes, _scored(values))
        ]
        return _ranked(scores, values, _joined(kept), codes, names)


class TopK:
    """Keeps so many; see ``TopKConfig``."""

    def __init__(self, config: TopKConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return the best ``k`` rows.

        Raises:
            StageError: fewer than ``k`` examples have a score.
        """
        values = scores.score()
        scored = _scored(values)
        k = self.config.k
        if k > len(scored):
            raise StageError(
                f"k = {k}, but only {len(scored)} of {len(values)} examples have a score",
                hint="lower k, or use top-fraction",
            )
        if self.config.per == "none":
            return _ranked(scores, values, _top(scores, values, scored, k))
        codes, names = scores.sources()
        sizes = np.bincount(codes[scored], minlength=len(names))
        # By name, so that equal remainders do not depend on the order of the pool's files.
        order = np.argsort(np.array(names))
        quota = np.empty(len(names), dtype=np.int64)
        quota[order] = split(k, sizes[order])
        kept = [
            _top(scores, values, rows, int(quota[code])) for code, rows in _by_source(codes, scored)
        ]
        return _ranked(scores, values, _joined(kept), codes, names)


class Threshold:
    """Keeps what lies within bounds; see ``ThresholdConfig``."""

    def __init__(self, config: ThresholdConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return every row whose score, or its distance from its source's mean, is in bounds."""
        values = scores.score()
        if self.config.per == "none":
            return _ranked(scores, values, self._within(values))
        codes, names = scores.sources()
        scored = _scored(values)
        own = codes[scored]
        counts = np.bincount(own, minlength=len(names))
        sums = np.bincount(own, weights=values[scored], minlength=len(names))
        means = sums / np.maximum(counts, 1)
        return _ranked(scores, values, self._within(values - means[codes]), codes, names)

    def _within(self, values: np.ndarray) -> np.ndarray:
        inside = np.isfinite(values)
        if self.config.min is not None:
            inside &= values >= self.config.min
        if self.config.max is not None:
            inside &= values <= self.config.max
        return np.flatnonzero(inside)


def _scored(values: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isfinite(values))


def _top(scores: ScoreTable, values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the best ``count`` of the sorted ``rows``, sorted."""
    places = top(values[rows], count, lambda level: scores.ids(rows[level]))
    return np.asarray(rows[places])


def _by_source(codes: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each source's code and its rows, sorted."""
    own = codes[rows]
    # A stable sort of 16-bit integers is a radix sort, which takes one pass.
    order = np.argsort(own.astype(np.min_scalar_type(int(own.max(initial=0)))), kind="stable")
    found, starts = np.unique(own[order], return_index=True)
    for code, places in zip(found.tolist(), np.split(order, starts[1:]), strict=False):
        yield code, rows[places]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def _ranked(
    scores: ScoreTable,
    values: np.ndarray,
    rows: np.ndarray,
    codes: np.ndarray | None = None,
    names: tuple[str, ...] = (),
) -> Selection:
    """Return the sorted ``rows`` best first, with their source as group where it mattered."""
    rows = rows[best_first(values[rows], lambda places: scores.ids(rows[places]))]
    group = None if codes is None else np.array(names, dtype=object)[codes[rows]].tolist()
    return Selection(rows, group)

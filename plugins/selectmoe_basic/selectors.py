"""Selectors that look only at scores, sources and ids."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pyarrow as pa

from selectmoe_basic.config import (
    BandConfig,
    ThresholdConfig,
    TokenBudgetConfig,
    TopFractionConfig,
    TopKConfig,
)
from selectmoe_core import Job, ScoreTable, Selection, StageError
from selectmoe_core.selecting import QuotaConfig, allotted, best_first, share_of, top_of_groups


class TopFraction:
    """Keeps the best share; see ``TopFractionConfig``."""

    def __init__(self, config: TopFractionConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return the best ``ceil(fraction * examples)`` rows, or all scored ones if they are fewer.

        With ``per = "source"`` this is done for each source, or the sources share the number out.
        """
        values = scores.score()
        if self.config.per == "none":
            return _best(scores, values, share_of(self.config.fraction, len(values)))
        if self.config.shared_out:
            return _shared_out(
                scores, values, share_of(self.config.fraction, len(values)), self.config
            )
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
        return _shared_out(scores, values, k, self.config)


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


class Band:
    """Keeps what lies between two percentiles; see ``BandConfig``."""

    def __init__(self, config: BandConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:  # noqa: ARG002
        """Return the rows of the band, of the whole pool or of each source."""
        values = scores.score()
        names: tuple[str, ...] = ()
        codes: np.ndarray | None = None
        if self.config.per == "source":
            codes, names = scores.sources()
        groups = codes if codes is not None else np.zeros(len(values), dtype=np.uint8)
        sizes = np.bincount(groups[np.isfinite(values)], minlength=max(len(names), 1)).tolist()
        low, high = (
            np.array([size - _below(limit, size) for size in sizes], dtype=np.int64)
            for limit in (self.config.low, self.config.high)
        )
        above = top_of_groups(values, groups, high, scores.ids)
        within = top_of_groups(values, groups, low, scores.ids)
        rows = np.setdiff1d(within, above, assume_unique=True)
        return _ranked(scores, values, rows, codes, names)


class TokenBudget:
    """Keeps as many of the best as fit a number of tokens; see ``TokenBudgetConfig``."""

    def __init__(self, config: TokenBudgetConfig) -> None:
        self.config = config

    def select(self, scores: ScoreTable, job: Job) -> Selection:
        """Return the best rows whose tokens fit, of the whole pool or of each source.

        Raises:
            StageError: not one example fits.
        """
        if job.inputs.model is None:
            raise StageError("token-budget needs a model", hint="add model to [select]")
        encoded = job.encoded(job.models.tokenizer(job.inputs.model))
        lengths = encoded.lengths if self.config.count == "all" else encoded.counted
        values = scores.score()
        scored = np.flatnonzero(np.isfinite(values))
        rows = scored[best_first(values[scored], lambda places: scores.ids(scored[places]))]
        if self.config.per == "none":
            found = Selection(rows[np.cumsum(lengths[rows], dtype=np.int64) <= self.config.most])
        else:
            found = self._per_source(scores, rows, lengths)
        if not len(found.rows):
            raise StageError(
                f"not one example fits into {self.config.most:,} tokens",
                hint="raise 'tokens', or shorten the examples with chat.max_length",
            )
        return found

    def _per_source(self, scores: ScoreTable, rows: np.ndarray, lengths: np.ndarray) -> Selection:
        codes, names = scores.sources()
        counts = np.bincount(codes[rows], weights=lengths[rows], minlength=len(names))
        sizes = dict(zip(names, counts.astype(np.int64).tolist(), strict=True))
        total = min(self.config.most, sum(sizes.values()))
        found = allotted(total, sizes, self.config, "tokens")
        kept = rows[_fitting(lengths[rows], codes[rows], found.counts)]
        group = pa.DictionaryArray.from_arrays(codes[kept], pa.array(names))
        return Selection(kept, group, warnings=found.warnings)


def _fitting(lengths: np.ndarray, codes: np.ndarray, budgets: Sequence[int]) -> np.ndarray:
    """Return whether rows, the best first, fit their group's budget with all better ones of it."""
    fits = np.zeros(len(lengths), dtype=bool)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(budgets)))
    for budget, own in zip(budgets, np.split(order, ends[:-1]), strict=True):
        fits[own] = np.cumsum(lengths[own], dtype=np.int64) <= budget
    return fits


def _below(percentile: float, size: int) -> int:
    """Return how many of ``size`` lie below a percentile, by the decimal that was written."""
    return -int(-Fraction(repr(percentile)) * size // 100)


def _shared_out(
    scores: ScoreTable, values: np.ndarray, total: int, config: QuotaConfig
) -> Selection:
    """Return the best rows of each source, so many of each as its quota and bounds say."""
    codes, names = scores.sources()
    counts = np.bincount(codes[np.isfinite(values)], minlength=len(names)).tolist()
    sizes = dict(zip(names, counts, strict=True))
    found = allotted(min(total, sum(counts)), sizes, config)
    rows = top_of_groups(values, codes, np.array(found.counts, dtype=np.int64), scores.ids)
    return replace(_ranked(scores, values, rows, codes, names), warnings=found.warnings)


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

"""The blend scorer: computes one score from finished score tables."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from selectmoe_core import Job, ScoreTable, ShardScores, StageError
from selectmoe_core.selecting import share_of
from selectmoe_lm.config import BlendConfig
from selectmoe_lm.ranks import as_they_are, percentiles, ranks, z_scores

SCALES = {"rank": ranks, "percentile": percentiles, "z-score": z_scores, "raw": as_they_are}


class BlendScorer:
    """Combines scores; see ``BlendConfig``."""

    def __init__(self, config: BlendConfig) -> None:
        self.config = config

    def combine(self, tables: Mapping[str, ScoreTable], job: Job) -> ShardScores:  # noqa: ARG002
        """Return one score for each row.

        Ranks, percentiles and z-scores are those among the rows that every table scores. Details:
        ``of_NAME``, each score on the common scale.

        Raises:
            StageError: a score is missing, or the tables are not of the same examples.
        """
        read = {name: _table(tables, name) for name in self.config.read}
        _check_same_examples(read)
        skipped = _skipped(read)
        common = np.flatnonzero([reason is None for reason in skipped])
        scaled = np.full((len(self.config.scores), len(skipped)), np.nan)
        for place, name in enumerate(self.config.scores):
            scaled[place, common] = SCALES[self.config.scale](read[name].score()[common])
        named = zip(self.config.scores, scaled, strict=True)
        details = {f"of_{name}": values for name, values in named}
        score = self._combined(scaled)
        if self.config.filter_first and len(common):
            shares = self.config.filter_first.items()
            best = [_best(read[name].score()[common], share) for name, share in shares]
            score[common[~np.all(best, axis=0)]] -= 1 + np.ptp(score[common])
        return ShardScores(score, skipped, details)

    def _combined(self, scaled: np.ndarray) -> np.ndarray:
        """Return ``[rows]`` from ``[scores, rows]``; NaN stays NaN."""
        if self.config.combine == "min":
            return np.asarray(scaled.min(axis=0))
        if self.config.combine == "product":
            return np.asarray(scaled.prod(axis=0))
        weights = np.array(self.config.weights or [1.0] * len(scaled))
        return np.asarray(weights @ scaled)


def _best(values: np.ndarray, share: float) -> np.ndarray:
    """Return which values are the best share, rounded up, or equal to the last of them."""
    count = share_of(share, len(values))
    return np.asarray(values >= np.partition(values, -count)[-count])


def _table(tables: Mapping[str, ScoreTable], name: str) -> ScoreTable:
    if name not in tables:
        raise StageError(f"there is no score '{name}' to blend", hint=f"add [score.{name}]")
    return tables[name]


def _check_same_examples(tables: Mapping[str, ScoreTable]) -> None:
    """Raise unless all tables have the same ids in the same order."""
    (first, table), *others = tables.items()
    ids = table.ids()
    for name, other in others:
        theirs = other.ids()
        if len(ids) != len(theirs) or (ids != theirs).any():
            missing = len(np.setdiff1d(_keys(ids), _keys(theirs)))
            raise StageError(
                f"the scores '{first}' ({len(ids)} examples) and '{name}' ({len(theirs)}) are not "
                f"of the same examples in the same order; {missing} ids of the first have no score "
                "in the second",
                hint="let both score the same pool",
            )


def _keys(ids: np.ndarray) -> np.ndarray:
    """Return ids ``[rows, 2]`` as one value each."""
    return np.ascontiguousarray(ids).view([("high", "<u8"), ("low", "<u8")]).reshape(-1)


def _skipped(tables: Mapping[str, ScoreTable]) -> list[str | None]:
    """Return why a row has no score: the reason of the first table that skipped it."""
    rows = len(next(iter(tables.values())))
    reasons: list[str | None] = [None] * rows
    for name, table in tables.items():
        for row, reason in enumerate(table.column("skipped").cast(pa.string()).to_pylist()):
            if reason is not None and reasons[row] is None:
                reasons[row] = f"{name}: {reason}"
    return reasons

"""How well a score separates clean rows from damaged ones: arrays in, numbers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959964
"""The normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Auroc:
    """The area under the ROC curve of clean over damaged rows.

    Attributes:
        value: the probability that a clean row scores above a damaged one, ties counting half.
        stderr: its standard error; NaN with fewer than two rows of either kind.
        clean: how many clean rows there are.
        damaged: how many damaged ones.
    """

    value: float
    stderr: float
    clean: int
    damaged: int

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.value - Z95 * self.stderr

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval."""
        return self.value + Z95 * self.stderr


def auroc(clean: np.ndarray, damaged: np.ndarray) -> Auroc:
    """Return the AUROC of ``clean`` over ``damaged`` with its standard error.

    The value is the Mann-Whitney statistic from mean ranks, exact with ties. The error is DeLong's
    (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988), by the mean ranks of Sun and Xu (IEEE
    Signal Processing Letters 21, 2014): ``O(n log n)``. A row without a score (NaN) cannot be
    selected, so it ranks below every scored one.

    Args:
        clean: scores of the clean rows, ``[clean]``, at least one.
        damaged: scores of the damaged rows, ``[damaged]``, at least one.
    """
    from scipy.stats import rankdata  # slow to import

    ours, theirs = _no_score_last(clean), _no_score_last(damaged)
    m, n = len(ours), len(theirs)
    if not m or not n:
        raise ValueError("an AUROC needs at least one clean row and one damaged row")
    joint = rankdata(np.concatenate([ours, theirs]))
    # For each clean row the share of damaged ones below it, and the other way round.
    over = (joint[:m] - rankdata(ours)) / n
    under = 1 - (joint[m:] - rankdata(theirs)) / m
    value = float(over.mean())
    if min(m, n) < 2:
        return Auroc(value, math.nan, m, n)
    variance = over.var(ddof=1) / m + under.var(ddof=1) / n
    return Auroc(value, math.sqrt(float(variance)), m, n)


def top(score: np.ndarray, fraction: float) -> np.ndarray:
    """Return the positions of the best ``fraction``, rounded up, the best first.

    Equal scores are taken in the given order. As in a selection, a row without a score counts for
    the number to keep but is never kept.
    """
    # In exact arithmetic .07 of 100 is 7; in floats it is a little more.
    keep = math.ceil(fraction * len(score) - 1e-9)
    order = np.argsort(-_no_score_last(score), kind="stable")[:keep]
    return np.asarray(order[np.isfinite(score[order])])


@dataclass(frozen=True)
class Precision:
    """The share of clean rows among the best ones.

    Attributes:
        value: the share; NaN if no row has a score.
        stderr: its binomial standard error.
        kept: how many rows were examined.
        base: the share of clean rows among all rows, which a random choice would give.
    """

    value: float
    stderr: float
    kept: int
    base: float


def precision(score: np.ndarray, clean: np.ndarray, fraction: float) -> Precision:
    """Return the share of clean rows in the best ``fraction``.

    Args:
        score: ``[rows]``, NaN for none.
        clean: bool ``[rows]``.
        fraction: of the rows, within (0, 1].
    """
    kept = top(score, fraction)
    base = float(clean.mean())
    if not len(kept):
        return Precision(math.nan, math.nan, 0, base)
    share = float(clean[kept].mean())
    return Precision(share, math.sqrt(share * (1 - share) / len(kept)), len(kept), base)


@dataclass(frozen=True)
class Shift:
    """A source's share of some rows and of the best of them."""

    source: str
    rows: int
    share: float
    kept: float


def shifts(
    score: np.ndarray, codes: np.ndarray, names: Sequence[str], fraction: float
) -> tuple[Shift, ...]:
    """Return each source's share of the rows and of their best ``fraction``, the largest first.

    Args:
        score: ``[rows]``.
        codes: the source of each row, ``[rows]``, as positions in ``names``.
        names: the sources.
        fraction: of the rows, within (0, 1].
    """
    kept = codes[top(score, fraction)]
    found = []
    for code, name in enumerate(names):
        rows = int((codes == code).sum())
        if rows:
            of_kept = float((kept == code).mean()) if len(kept) else math.nan
            found.append(Shift(name, rows, rows / len(codes), of_kept))
    return tuple(sorted(found, key=lambda shift: (-shift.rows, shift.source)))


def _no_score_last(score: np.ndarray) -> np.ndarray:
    values = np.asarray(score, dtype=np.float64)
    return np.where(np.isnan(values), -np.inf, values)

"""Weights of a blend, learned from planted damage that no warm-up was shown.

A logistic regression of clean against damaged rows on the ranks of the scores. A blend adds, so a
score with a negative weight is left out and the rest is fitted again. How well it does is measured
on kinds of damage, and on clean rows, that the regression has not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core.audit.measures import auroc

ENOUGH = 20
"""Kinds with fewer rows take no part."""
FOLDS = 5
"""Parts of the rows if there is a single kind; otherwise each kind leaves out a part of its own."""
PENALTY = 1.0
"""The inverse strength of the penalty on the squared weights of standardised ranks."""


@dataclass(frozen=True)
class Held:
    """The AUROC on kinds that were not fitted on.

    Attributes:
        value: the mean over kinds.
        stderr: its standard error over kinds; NaN with a single one.
    """

    value: float
    stderr: float


@dataclass(frozen=True)
class BlendFit:
    """Weights for a blend, and how well they do.

    Attributes:
        weights: of each score that is used, by name; the smallest is 1.
        left_out: scores whose weight would be negative.
        kinds: the kinds of damage that were fitted on.
        fitted: the blend, fitted without the kind that it is measured on.
        equal: the blend with equal weights.
        alone: each score by itself.
    """

    weights: Mapping[str, float]
    left_out: tuple[str, ...]
    kinds: tuple[str, ...]
    fitted: Held
    equal: Held
    alone: Mapping[str, Held]


@dataclass(frozen=True)
class TooFew:
    """Nothing was fitted: too few rows of kinds that warm-up was not shown, or of clean ones."""


def fit_blend(
    scores: Mapping[str, np.ndarray], labels: np.ndarray, kinds: Sequence[str]
) -> BlendFit | TooFew:
    """Return the weights of a blend of these scores, or that there are too few rows.

    Rows that one of the scores skipped take no part, as in a blend.

    Args:
        scores: ``[rows]`` each, NaN for none.
        labels: the kind of damage of each row, ``""`` for none.
        kinds: the kinds that no score was made with.
    """
    names = tuple(scores)
    known = np.isfinite(np.array([scores[name] for name in names])).all(axis=0)
    used = [kind for kind in kinds if (known & (labels == kind)).sum() >= ENOUGH]
    rows = known & ((labels == "") | np.isin(labels, used))
    if not used or (labels[rows] == "").sum() < ENOUGH:
        return TooFew()
    table = np.column_stack([_ranks(scores[name][rows]) for name in names])
    found = labels[rows]
    whole = _weights(table, found == "")
    alone = {
        name: _held(table, found, used, only)
        for name, only in zip(names, np.eye(len(names)), strict=True)
    }
    least = min((weight for weight in whole if weight > 0), default=1.0)
    kept = {
        name: round(float(weight / least), 2)
        for name, weight in zip(names, whole, strict=True)
        if weight > 0
    }
    left_out = tuple(name for name in names if name not in kept)
    fitted = _held(table, found, used, None)
    equal = _held(table, found, used, np.ones(len(names)))
    return BlendFit(kept, left_out, tuple(used), fitted, equal, alone)


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # slow to import

    return np.asarray(rankdata(values) / len(values))


def _weights(table: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return a weight of at least 0 for each score, ``[scores]``.

    Args:
        table: ranks, ``[rows, scores]``.
        clean: bool ``[rows]``.
    """
    from sklearn.linear_model import LogisticRegression

    spread = table.std(axis=0)
    left = [place for place in range(table.shape[1]) if spread[place] > 0]
    weights = np.zeros(table.shape[1])
    while left:
        inputs = (table[:, left] - table[:, left].mean(axis=0)) / spread[left]
        model = LogisticRegression(C=PENALTY, class_weight="balanced").fit(inputs, clean)
        found = model.coef_[0] / spread[left]
        if (found > 0).all():
            weights[left] = found
            return weights
        left.pop(int(found.argmin()))
    return weights


def _held(
    table: np.ndarray, labels: np.ndarray, kinds: Sequence[str], fixed: np.ndarray | None
) -> Held:
    """Return the AUROC over each kind by weights that have not seen it, or by ``fixed`` ones.

    The rows of a single kind are split like the clean ones.
    """
    clean = np.flatnonzero(labels == "")
    several = len(kinds) > 1
    folds = len(kinds) if several else FOLDS
    # By their place in the table, which hashes decide.
    part = np.full(len(labels), -1)
    part[clean] = np.arange(len(clean)) % folds
    damaged = np.flatnonzero(labels != "")
    part[damaged] = (
        [kinds.index(label) for label in labels[damaged]]
        if several
        else np.arange(len(damaged)) % folds
    )
    values = []
    for fold in range(folds):
        mine = part == fold
        weights = _weights(table[~mine], labels[~mine] == "") if fixed is None else fixed
        score = table[mine] @ weights
        values.append(auroc(score[labels[mine] == ""], score[labels[mine] != ""]).value)
    error = float(np.std(values, ddof=1) / np.sqrt(folds)) if folds > 1 else float("nan")
    return Held(float(np.mean(values)), error)

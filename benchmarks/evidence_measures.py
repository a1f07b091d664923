"""How well scores tell damaged rows: AUROC by kind, blends, and what else a score goes by."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from evidence_data import Judged
from scipy.stats import rankdata, spearmanr
from torch.nn import functional

from selectmoe_core.audit.measures import auroc, shifts

WEIGHTS = (1, 3, 9)
"""Of the first score in a blend, beside 1 for the second."""


def by_kind(score: np.ndarray, judged: Judged) -> dict[str, float]:
    """Return the AUROC of clean over damaged rows, over ``all`` kinds and for each.

    A row without a score counts as the worst.
    """
    clean = score[judged.clean]
    found = {"all": auroc(clean, score[~judged.clean]).value}
    for kind in sorted(set(judged.kinds) - {""}):
        found[kind] = auroc(clean, score[judged.kinds == kind]).value
    return {kind: round(float(value), 4) for kind, value in found.items()}


def unseen(found: Mapping[str, float], left_out: Sequence[str]) -> dict[str, float]:
    """Return the AUROCs of the kinds that a warm-up has not seen."""
    return {kind: found[kind] for kind in left_out if kind in found}


def ranks(score: np.ndarray) -> np.ndarray:
    """Return ranks within (0, 1]; rows without a score share the lowest."""
    filled = np.where(np.isfinite(score), score, -np.inf)
    found: np.ndarray = rankdata(filled) / len(filled)
    return found


def blended(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Return the smaller of two scores' ranks and their sums, as the ``blend`` scorer makes them.

    Of a sum the first score has ``WEIGHTS`` times the second's weight.
    """
    one, other = ranks(first), ranks(second)
    sums = {f"sum {weight}:1": (weight * one + other) / (weight + 1) for weight in WEIGHTS}
    return {"min": np.minimum(one, other)} | sums


def goes_by(
    score: np.ndarray, lengths: np.ndarray, sources: Sequence[str], fraction: float
) -> dict[str, Any]:
    """Return a score's rank correlation with length, and the sources' shares of its best rows.

    Args:
        score: ``[rows]``.
        lengths: tokens of each row's answer.
        sources: of each row.
        fraction: of rows that are the best.
    """
    scored = np.isfinite(score)
    names, codes = np.unique(np.array(sources), return_inverse=True)
    best = np.argsort(-np.where(scored, score, -np.inf))[: max(1, int(fraction * len(score)))]
    return {
        "spearman_length": round(float(spearmanr(score[scored], lengths[scored]).statistic), 4),
        "mean_length": [round(float(lengths.mean()), 1), round(float(lengths[best].mean()), 1)],
        "shares": {
            shift.source: [round(shift.share, 4), round(shift.kept, 4)]
            for shift in shifts(score, codes, list(names), fraction)
        },
    }


def logistic(features: np.ndarray, damaged: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return how sound a logistic regression takes rows to be, ``[rows asked]``.

    Features are standardised; the penalty is .03 of the squared weights.

    Args:
        features: ``[rows, width]`` to learn from.
        damaged: bool ``[rows]``.
        asked: ``[rows asked, width]``.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    inputs, others = (torch.from_numpy((x - mean) / spread).float() for x in (features, asked))
    labels = torch.from_numpy(damaged).float()
    weights = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=200)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        error = functional.binary_cross_entropy_with_logits(inputs @ weights + bias, labels)
        found = error + 0.03 * (weights @ weights)
        found.backward()
        return found

    solver.step(loss)
    return -(others @ weights).detach().numpy()

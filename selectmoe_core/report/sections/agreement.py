"""How much several scores of one pool agree."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from selectmoe_core.report.distribution import spearman
from selectmoe_core.report.findings import Agreement


def agreements(scores: Mapping[str, np.ndarray], best: int) -> tuple[Agreement, ...]:
    """Compare every two scores: their rank correlation, and the overlap of their best.

    Args:
        scores: float ``[rows]`` each, NaN where there is none; all of one pool.
        best: how many of the best are compared, usually as many as were selected.
    """
    return tuple(
        _agreement(first, second, scores[first], scores[second], best)
        for first, second in combinations(scores, 2)
        if len(scores[first]) == len(scores[second])
    )


def _agreement(first: str, second: str, one: np.ndarray, other: np.ndarray, best: int) -> Agreement:
    both = np.flatnonzero(np.isfinite(one) & np.isfinite(other))
    a, b = one[both], other[both]
    count = min(best, len(both))
    shared = np.intersect1d(_best(a, count), _best(b, count))
    return Agreement(
        first=first,
        second=second,
        correlation=spearman(a, b) if len(both) > 2 else float("nan"),
        rows=len(both),
        best=count,
        overlap=len(shared),
        chance=count * count / len(both) if len(both) else 0.0,
    )


def _best(values: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-values, kind="stable")[:count]

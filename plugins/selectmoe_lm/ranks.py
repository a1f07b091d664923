"""Scores of a whole pool on a common scale. Pure functions on arrays without NaN."""

import numpy as np
from scipy.stats import rankdata

from selectmoe_core import StageError


def as_they_are(values: np.ndarray) -> np.ndarray:
    """Return the values themselves: ``[rows]``."""
    return values


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, the smallest; equal values share their mean rank: ``[rows]``."""
    return np.asarray(rankdata(values), dtype=np.float64)


def percentiles(values: np.ndarray) -> np.ndarray:
    """Return percentiles, ``100 * (rank - 1/2) / rows``, between 0 and 100: ``[rows]``."""
    return 100 * (ranks(values) - 0.5) / max(len(values), 1)


def z_scores(values: np.ndarray) -> np.ndarray:
    """Return distances from the mean in standard deviations: ``[rows]``.

    Raises:
        StageError: all values are equal.
    """
    deviation = values.std() if len(values) else 0.0
    if not deviation:
        raise StageError(
            f"{len(values)} equal scores have no z-scores", hint='set scale = "rank" in the blend'
        )
    return np.asarray((values - values.mean()) / deviation)

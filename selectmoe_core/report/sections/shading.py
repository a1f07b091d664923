"""The tokens of the shown examples in shades, on one scale for all of them."""

from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

from selectmoe_core.data.shown import TokenDetail
from selectmoe_core.report.findings import Piece, Shading

LEVELS = 5
SHADED = 800
"""The most tokens of one example that are shaded."""
OUTLIERS = 0.98
"""The quantile of all numbers that gets the darkest shade; what is larger gets it too."""


def shadings(details: Mapping[int, TokenDetail]) -> dict[int, Shading]:
    """Return the shaded tokens by row."""
    known = [one.values[np.isfinite(one.values)] for one in details.values()]
    if not sum(map(len, known)):
        return {}
    values = np.concatenate(known)
    low, high = float(values.min()), float(values.max())
    scale = float(np.quantile(np.abs(values), OUTLIERS)) or 1.0
    return {
        row: Shading(
            one.name, tuple(_pieces(one, scale)), low, high, max(0, len(one.texts) - SHADED)
        )
        for row, one in details.items()
        if np.isfinite(one.values).any()
    }


def levels(values: np.ndarray, scale: float) -> np.ndarray:
    """Return the shade of each value, int ``[tokens]``: 0 for none, else 1 to 5 with its sign."""
    size = np.clip(np.ceil(LEVELS * np.abs(values) / scale), 1, LEVELS)
    return np.where(np.isfinite(values), np.where(values < 0, -size, size), 0).astype(np.int64)


def _pieces(detail: TokenDetail, scale: float) -> Iterator[Piece]:
    """Yield neighbouring tokens of one shade together."""
    values = detail.values[:SHADED]
    shades = levels(values, scale).tolist()
    rows = zip(detail.texts[:SHADED], shades, values.tolist(), detail.counts.tolist(), strict=False)
    for (level, counts), own in groupby(rows, key=lambda row: (row[1], row[3])):
        tokens = list(own)
        text = "".join(token[0] for token in tokens)
        mean = float(np.mean([token[2] for token in tokens])) if level else None
        yield Piece(text, level, mean, counts)

"""The ways to select that ``selection.py`` measures, and the same choices by a plain sort."""

import math
from fractions import Fraction
from typing import Any

import numpy as np

WAYS = {
    "top-fraction 0.05 of each source": ("top-fraction", {"fraction": 0.05, "per": "source"}),
    "top-fraction 0.3 of each source": ("top-fraction", {"fraction": 0.3, "per": "source"}),
    "top-fraction 0.05": ("top-fraction", {"fraction": 0.05}),
    "top-k a twentieth, by source": ("top-k", {"k": None, "per": "source"}),
    "threshold 1.64 from each source's mean": ("threshold", {"min": 1.64, "per": "source"}),
}


def options_of(name: str, rows: int) -> tuple[str, dict[str, Any]]:
    """Return a way's component and its options for so many rows."""
    component, options = WAYS[name]
    return component, options | ({"k": rows // 20} if "k" in options else {})


def plain_rows(scores: Any, name: str) -> Any:  # noqa: ANN401
    """Return the rows that a way keeps, by sorting everything: the reference."""
    component, options = options_of(name, len(scores))
    values, words = scores.score(), scores.ids()
    codes, names = scores.sources()
    order = np.lexsort((words[:, 1], words[:, 0], -values))
    order = order[np.isfinite(values[order])]
    if "per" not in options:
        return order[: math.ceil(Fraction(str(options["fraction"])) * len(values))]
    own = [order[codes[order] == code] for code in range(len(names))]
    if component == "threshold":
        means = [_mean(values[np.sort(rows)]) for rows in own]
        pairs = zip(own, means, strict=True)
        kept = [rows[values[rows] - mean >= options["min"]] for rows, mean in pairs]
    else:
        if component == "top-fraction":
            share = Fraction(str(options["fraction"]))
            quota = [math.ceil(share * int((codes == code).sum())) for code in range(len(names))]
        else:
            quota = _hamilton(options["k"], dict(zip(names, map(len, own), strict=True)), names)
        kept = [rows[:count] for rows, count in zip(own, quota, strict=True)]
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.concatenate(kept)] = True
    return order[chosen[order]]


def _mean(values: Any) -> float:  # noqa: ANN401
    """Return the mean, added up one after the other as ``bincount`` does: a bound may be hit."""
    total = 0.0
    for value in values.tolist():
        total += value
    return total / max(len(values), 1)


def _hamilton(k: int, sizes: dict[str, int], names: tuple[str, ...]) -> list[int]:
    """Return the quotas of ``k`` by size, largest remainder, ties by name."""
    exact = {name: Fraction(k * size, sum(sizes.values())) for name, size in sizes.items()}
    quota = {name: int(share) for name, share in exact.items()}
    rest = sorted(exact, key=lambda name: (quota[name] - exact[name], name))
    for name in rest[: k - sum(quota.values())]:
        quota[name] += 1
    return [quota[name] for name in names]

"""How long examples are: of the pool, of the selection and of the random arm."""

from collections.abc import Mapping

import numpy as np

from selectmoe_core.data.pool import Pool
from selectmoe_core.paths import inside
from selectmoe_core.report.findings import LengthRow, Lengths
from selectmoe_core.store import Artifact

BINS = 40
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LONGEST = 0.99
"""The quantile at which the picture ends; the last bin also counts what is longer."""


def summarise_lengths(
    pool: Pool, scores: list[Artifact], selections: Mapping[str, np.ndarray]
) -> Lengths:
    """Return lengths in the tokens of a scorer, or in characters where no stage made tokens.

    Args:
        pool: the pool.
        scores: finished scores; the first that had tokens decides.
        selections: chosen rows by name.
    """
    found = next((own for own in map(_tokens, scores) if own is not None), None)
    if found is None or len(found) != len(pool):
        unit, lengths = "characters", _characters(pool)
    else:
        unit, lengths = "tokens", found
    top = float(np.quantile(lengths, LONGEST)) if len(lengths) else 1.0
    low = float(lengths.min()) if len(lengths) else 0.0
    edges = np.linspace(low, max(top, low + 1), min(BINS, max(1, int(top - low)) + 1) + 1)
    rows = [_row("pool", lengths, edges)]
    rows += [_row(name, lengths[rows], edges) for name, rows in selections.items()]
    return Lengths(unit, edges, tuple(rows))


def _tokens(score: Artifact) -> np.ndarray | None:
    """Return the tokens of each row, if the token cache of a score is still there and whole."""
    name = (score.facts.get("tokens") or {}).get("encoded")
    if not isinstance(name, str):
        return None
    folder = inside(score.folder.parent, name, where=f"the tokens of {score.folder}")
    found = Artifact.load(folder)
    if found is None or found.damage():
        return None
    from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
    from selectmoe_core.tokens.encoding import Encoded

    return Encoded.open(folder, ChatFormat(ChatConfig())).lengths


def _characters(pool: Pool) -> np.ndarray:
    from selectmoe_core.report.distribution import lengths

    return lengths(pool, np.arange(len(pool)))[0].astype(np.int64)


def _row(name: str, lengths: np.ndarray, edges: np.ndarray) -> LengthRow:
    quantiles = np.quantile(lengths, QUANTILES) if len(lengths) else np.full(len(QUANTILES), np.nan)
    counts = np.histogram(np.clip(lengths, edges[0], edges[-1]), edges)[0]
    total = int(lengths.sum())
    return LengthRow(name, len(lengths), total, tuple(map(float, quantiles)), counts)

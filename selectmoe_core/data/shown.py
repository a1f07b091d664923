"""The examples of a score that a report shows, and what the scorer says about their tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.store import replacing

SHOWN = 10
"""The most examples of one kind: the best, the worst, and others."""
RUNGS, ONE_IN = 160, 15
"""Of the ladder over all rows: the most rows, and one in how many rows at most."""
SOURCE_RUNGS, SOURCE_ONE_IN = 16, 3
"""The same of the ladder within each of the largest sources."""
LARGEST = 5
"""The sources that have a ladder of their own, and a border if each gives a share."""
TOKENS = "shown_tokens.parquet"
DETAILS = b"details"


@dataclass(frozen=True)
class TokenDetail:
    """A number for each token of an example, for the shading in the report.

    Attributes:
        name: what the numbers are, for example ``trash mass``.
        texts: the text of each token; joined they are the example as the model reads it.
        values: float ``[tokens]``; NaN where a token has no number.
        counts: which tokens the example's score is computed from, bool ``[tokens]``.
    """

    name: str
    texts: tuple[str, ...]
    values: np.ndarray
    counts: np.ndarray

    def problem(self) -> str:
        """Return what is wrong with the lengths, or an empty text."""
        sizes = len(self.texts), len(self.values), len(self.counts)
        return "" if len(set(sizes)) == 1 else f"texts, values and counts have the lengths {sizes}"


def ends(score: np.ndarray, ids: np.ndarray, most: int = SHOWN) -> tuple[list[int], list[int]]:
    """Return the rows of the best scores, best first, and of the worst, worst first.

    Equal scores are ordered by id, the smaller the better, as selectors do.
    """
    rows = np.flatnonzero(np.isfinite(score))
    count = min(most, len(rows))
    if not count:
        return [], []
    return _top(-score, ids, rows, count), _top(score, ~ids, rows, count)


def _top(keys: np.ndarray, ids: np.ndarray, rows: np.ndarray, count: int) -> list[int]:
    own = keys[rows]
    limit = np.partition(own, count - 1)[count - 1]
    near = rows[own <= limit]
    order = np.lexsort((ids[near, 1], ids[near, 0], keys[near]))
    return [int(row) for row in near[order[:count]]]


def drawn(rows: np.ndarray, most: int = SHOWN) -> list[int]:
    """Return some of the rows by chance, in their order; the same for the same rows."""
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return [int(row) for row in rows]


def largest(codes: np.ndarray) -> list[int]:
    """Return the codes of the largest groups, the largest first."""
    return [int(code) for code in np.argsort(-np.bincount(codes), kind="stable")[:LARGEST]]


def ladder(score: np.ndarray, ids: np.ndarray, rows: np.ndarray, most: int) -> list[int]:
    """Return up to ``most`` of ``rows`` at equal steps of rank, the best first.

    Of equal scores the row with the smallest id is taken.
    """
    rows = rows[np.isfinite(score[rows])]
    count = min(most, len(rows))
    if not count:
        return []
    own = score[rows]
    places = ((np.arange(count) + 0.5) * len(rows) / count).astype(np.int64)
    # Not sorted as a whole: a pool may have a hundred million rows.
    values = -np.unique(np.partition(-own, places)[places])
    near = rows[np.isin(own, values)]
    order = near[np.lexsort((ids[near, 1], ids[near, 0], -score[near]))]
    first = np.unique(-score[order], return_index=True)[1]
    return [int(row) for row in order[first]]


def examples_of_score(score: np.ndarray, ids: np.ndarray, codes: np.ndarray) -> list[int]:
    """Return the rows whose tokens are kept for the report.

    They are the best, the worst, some by chance, and two kinds of ladders: over all rows, and
    within the largest sources. What will be chosen is not known while scores are made; wherever
    the border of a selection will be, a row of a ladder is near it.

    Args:
        score: float ``[rows]``, NaN where there is none.
        ids: of the rows, ``[rows, 2]``.
        codes: the source of each row, int ``[rows]``.
    """
    best, worst = ends(score, ids)
    every = np.arange(len(score))
    chance = drawn(np.flatnonzero(np.isfinite(score)))
    found = [*best, *worst, *chance, *ladder(score, ids, every, min(RUNGS, len(every) // ONE_IN))]
    for code in largest(codes) if len(codes) else ():
        own = np.flatnonzero(codes == code)
        found += ladder(score, ids, own, min(SOURCE_RUNGS, len(own) // SOURCE_ONE_IN))
    return list(dict.fromkeys(found))


def write_tokens(folder: Path, rows: Sequence[int], details: Sequence[TokenDetail]) -> None:
    """Write the details of the tokens of some rows, by rename."""
    table = pa.table(
        {
            "row": pa.array(rows, pa.int64()),
            "text": pa.array([list(one.texts) for one in details], pa.list_(pa.string())),
            "value": pa.array(
                [np.asarray(one.values, np.float32) for one in details], pa.list_(pa.float32())
            ),
            "counts": pa.array(
                [list(map(bool, one.counts)) for one in details], pa.list_(pa.bool_())
            ),
        },
        metadata={DETAILS: json.dumps([one.name for one in details])},
    )
    with replacing(folder / TOKENS, alone=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_tokens(folder: Path) -> dict[int, TokenDetail]:
    """Return the details of the tokens by row; empty where the scorer gave none."""
    path = folder / TOKENS
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    names = json.loads((table.schema.metadata or {}).get(DETAILS, b"[]"))
    columns = (table.column(name).to_pylist() for name in ("row", "text", "value", "counts"))
    return {
        row: TokenDetail(name, tuple(text), np.asarray(value, np.float64), np.asarray(counts, bool))
        for name, row, text, value, counts in zip(names, *columns, strict=True)
    }

"""What filters leave out of a selection: which rows, why, and where that is written."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.examples import ID_BYTES
from selectmoe_core.data.marks import FilteredTable, LeftOut, Marks, apply_marks, read_marks
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.selection import LEFT_OUT
from selectmoe_core.errors import StageError
from selectmoe_core.runtime.prefetch import ahead
from selectmoe_core.store import replacing

ROLE = "filter:"
"""The beginning of the role of a filter among the inputs of a selection."""
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.binary(ID_BYTES)),
        ("source", pa.string()),
        ("score", pa.float64()),
        ("filter", pa.string()),
        ("reason", pa.string()),
        ("group", pa.int64()),
    ]
)
NAMES = ["source", "filter", "reason"]
GROUP = 1 << 20
"""Rows written at once."""


def marks_of(inputs: Mapping[str, Path]) -> dict[str, Marks]:
    """Read the marks of all filters among a node's inputs, in the order of their names.

    The order of a recipe's tables is in no digest, so that it must not matter.
    """
    return {
        role.removeprefix(ROLE): read_marks(folder)
        for role, folder in sorted(inputs.items())
        if role.startswith(ROLE)
    }


def without_left_out(
    table: ScoreTable, filters: Mapping[str, Marks]
) -> tuple[ScoreTable, LeftOut | None]:
    """Return the scores as a selector sees them, and what the filters leave out of them.

    Raises:
        StageError: the filters leave out every row that has a score.
    """
    if not filters:
        return table, None
    left = apply_marks(table, filters)
    found = FilteredTable(table.parts, left.rows)
    if not np.isfinite(found.score()).any():
        counts = np.bincount(left.codes, minlength=len(left.reasons) + 1)[1:].tolist()
        named = [
            f"{owner}: {reason} {count:,}"
            for (owner, reason), count in zip(left.reasons, counts, strict=True)
            if count
        ]
        raise StageError(
            f"the filters leave out every example that has a score: {'; '.join(named)}",
            hint="loosen the options of [filter.NAME], or remove one of these tables",
        )
    return found, left


def write_left_out(folder: Path, table: ScoreTable, scores: np.ndarray, left: LeftOut) -> None:
    """Write the rows that are left out, in the order of the pool, by rename.

    Args:
        folder: where to write.
        table: the scores, for ids and sources.
        scores: float ``[rows]``, those of rows that are left out too.
        left: which rows, and why.
    """
    rows = left.rows
    codes, names = table.sources()
    owners = pa.array([owner for owner, _ in left.reasons], pa.string())
    reasons = pa.array([reason for _, reason in left.reasons], pa.string())

    def group(start: int) -> pa.Table:
        own = rows[start : start + GROUP]
        words = table.ids(own).astype(">u8")
        kind, places = pa.binary(ID_BYTES), pa.array(left.codes[own] - 1)
        score, numbers = scores[own], left.groups[own]
        columns = [
            pa.array(own),
            pa.FixedSizeBinaryArray.from_buffers(kind, len(own), [None, pa.py_buffer(words)]),
            pa.DictionaryArray.from_arrays(codes[own], names).cast(pa.string()),
            pa.array(score, mask=np.isnan(score)),
            owners.take(places),
            reasons.take(places),
            pa.array(numbers, mask=numbers < 0),
            *(values.take(pa.array(own)).cast(pa.string()) for values in left.columns.values()),
        ]
        return pa.table(columns, schema=schema)

    schema = pa.schema([*SCHEMA, *((name, pa.string()) for name in left.columns)])
    with (
        replacing(folder / LEFT_OUT, alone=True) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=[*NAMES, *left.columns]) as file,
    ):
        for piece in ahead(group, range(0, len(rows), GROUP)):
            file.write_table(piece)


def best_of(left: LeftOut, rows: np.ndarray) -> pa.Array | None:
    """Return why kept rows of a group were kept, null for the others: ``[rows]``.

    ``None`` if no kept row has a group.
    """
    sizes = left.sizes[rows]
    several = sizes > 1
    kinds, places = np.unique(sizes[several], return_inverse=True)
    texts = pa.array([f"the best of {size:,} rows that are alike" for size in kinds.tolist()])
    codes = np.zeros(len(rows), dtype=np.int32)
    codes[several] = places
    if not len(texts):
        return None
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=~several), texts)

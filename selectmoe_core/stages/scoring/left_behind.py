"""The scores of a shard that could not be made: none, in the columns that all others have."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.scores import KERNEL, OWN_COLUMNS, ScoreTable, ShardScores, features_path

FAILED_REASON = "its shard could not be scored"


def scores_of_none(folder: Path, examples: int) -> ShardScores:
    """Return scores that skip every example, with the columns of a shard that was made.

    Args:
        folder: the artifact's folder.
        examples: how many there are.

    Raises:
        StageError: no shard was made.
    """
    made = ScoreTable.open(folder).parts[0]
    schema = pq.read_schema(made)
    kernel = (schema.metadata or {}).get(KERNEL.encode())
    features = features_path(folder, int(made.stem.removeprefix("part-")))
    width = np.load(features, mmap_mode="r").shape[1] if features.is_file() else 0
    details = {
        field.name: _nothing(field.type, examples)
        for field in schema
        if field.name not in OWN_COLUMNS
    }
    return ShardScores(
        np.full(examples, np.nan),
        [FAILED_REASON] * examples,
        details,
        np.zeros((examples, width), dtype=np.float16) if width else None,
        kernel.decode() if kernel else None,
    )


def _nothing(kind: pa.DataType, examples: int) -> np.ndarray:
    """Return a column of a type that says nothing: not a number, or zero."""
    if pa.types.is_fixed_size_list(kind):
        return np.full((examples, kind.list_size), np.nan, dtype=np.float32)
    if pa.types.is_floating(kind):
        return np.full(examples, np.nan, dtype=kind.to_pandas_dtype())
    return np.zeros(examples, dtype=kind.to_pandas_dtype())

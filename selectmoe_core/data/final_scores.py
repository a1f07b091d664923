"""Final scores in the place of provisional ones, for scorers that need the whole pool."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selectmoe_core.data.scores import ScoreTable, write_part_table
from selectmoe_core.errors import StageError


def replace_scores(
    table: ScoreTable, score: np.ndarray, skipped: Sequence[str | None] | None = None
) -> None:
    """Replace the scores of finished parts, each by rename; the other columns stay.

    Args:
        table: the scores.
        score: the new ones, ``[rows]``.
        skipped: reasons for rows that get no score after all, ``[rows]``.

    Raises:
        StageError: a row has no finite score but was not skipped, or has one but was skipped.
    """
    now = np.asarray(score, dtype=np.float64)
    reasons = pa.array([None] * len(table) if skipped is None else skipped, pa.string())
    given = np.isfinite(table.score()) & reasons.is_null().to_numpy(zero_copy_only=False)
    if now.shape != (len(table),) or (np.isfinite(now) != given).any():
        raise StageError(
            f"the scorer finished {len(table)} rows with scores of shape {now.shape} that are not "
            "finite where the shards' are",
            hint="fix the scorer's finish(): one finite number for each row that it did not skip",
        )
    start = 0
    for path in table.parts:
        part = pq.read_table(path)
        some = slice(start, start + len(part))
        start += len(part)
        part = _replaced(part, "score", pa.array(now[some], pa.float64()))
        if skipped is not None:
            before = part.column("skipped").cast(pa.string())
            both = pc.coalesce(before, reasons[some]).combine_chunks()
            part = _replaced(part, "skipped", both.dictionary_encode())
        write_part_table(path, part)


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)

"""``select``: positions from a selector become rows that can be trained on."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.artifacts import Facts
from selectmoe_core.errors import StageError
from selectmoe_core.pool import Pool
from selectmoe_core.scores import ScoreTable, Selection
from selectmoe_core.stages.context import Context

SELECTION = "selection.parquet"
SELECTED = "selected_data.jsonl"


def run(context: Context) -> Facts:
    """Select, check what was selected, and write it out in full."""
    pool = context.pool()
    table = ScoreTable.open(context.work.inputs["score"])
    if len(table) != len(pool):
        raise StageError(
            f"{context.work.inputs['score']} holds {len(table)} scores for a pool of {len(pool)}",
            hint="parts of it were lost: make it anew with --fresh score",
        )
    selection: Selection = context.part.select(table, context.job)
    scores = table.score()
    rows = np.asarray(selection.rows, dtype=np.int64)
    _check(rows, scores)
    codes, names = table.sources()
    with context.job.progress.task("write", len(rows)) as advance:
        _write_rows(context.folder, pool, rows, scores, advance)
    _write_table(context.folder, selection, rows, scores, codes, names, pool)
    kept, of = Counter(codes[rows].tolist()), Counter(codes.tolist())
    sources = {
        names[code]: {"kept": kept.get(code, 0), "of": count} for code, count in sorted(of.items())
    }
    return {"kept": len(rows), "of": len(scores), "sources": sources}


def selected_rows(folder: Path) -> np.ndarray:
    """Return the positions that a ``select`` artifact keeps, the best first."""
    column = pq.read_table(folder / SELECTION, columns=["row"]).column(0)
    return np.asarray(column.to_numpy())


def _check(rows: np.ndarray, scores: np.ndarray) -> None:
    if not len(rows):
        raise StageError(
            f"nothing was selected of {len(scores)} examples",
            hint="loosen the options of [select]: a larger fraction, another threshold",
        )
    if rows.min() < 0 or rows.max() >= len(scores):
        raise StageError("the selector gave a position outside the pool")
    if len(np.unique(rows)) != len(rows):
        raise StageError("the selector gave a position twice")
    if not np.isfinite(scores[rows]).all():
        raise StageError("the selector kept an example that has no score")


def _write_rows(
    folder: Path,
    pool: Pool,
    rows: np.ndarray,
    scores: np.ndarray,
    advance: Any,  # noqa: ANN401
) -> None:
    path = folder / SELECTED
    with path.with_suffix(".tmp").open("w", encoding="utf-8") as file:
        for line in _lines(pool, rows, scores):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            advance(1)
    path.with_suffix(".tmp").replace(path)


def _lines(pool: Pool, rows: np.ndarray, scores: np.ndarray) -> Iterator[dict[str, Any]]:
    for rank, (row, example) in enumerate(zip(rows, pool.take(rows), strict=True), start=1):
        yield {
            "id": example.id,
            "source": example.source,
            "messages": [{"role": m.role, "content": m.content} for m in example.messages],
            "score": float(scores[row]),
            "rank": rank,
            "meta": pool.meta(int(row)),
        }


def _write_table(
    folder: Path,
    selection: Selection,
    rows: np.ndarray,
    scores: np.ndarray,
    codes: np.ndarray,
    names: tuple[str, ...],
    pool: Pool,
) -> None:
    empty = [None] * len(rows)
    ids = [example.id for example in pool.take(rows)]
    columns = {
        "row": pa.array(rows),
        "id": pa.array([bytes.fromhex(one) for one in ids], pa.binary(16)),
        "source": pa.DictionaryArray.from_arrays(pa.array(codes[rows]), pa.array(names)),
        "rank": pa.array(np.arange(1, len(rows) + 1)),
        "score": pa.array(scores[rows]),
        "group": pa.array(list(selection.group or empty), pa.string()),
        "reason": pa.array(list(selection.reason or empty), pa.string()),
    }
    path = folder / SELECTION
    pq.write_table(pa.table(columns), path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)

"""``select``: the positions that a selector returns become rows for training."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.examples import ID_BYTES
from selectmoe_core.data.marks import LeftOut
from selectmoe_core.data.pool import TAKEN, Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.selection import SELECTION, Selection
from selectmoe_core.errors import StageError, listing
from selectmoe_core.plugin.protocols import Job, Selector
from selectmoe_core.runtime.prefetch import ahead
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.dataset_card import CARD, dataset_card
from selectmoe_core.stages.filtering import counts_by_source
from selectmoe_core.stages.left_out import best_of, marks_of, without_left_out, write_left_out
from selectmoe_core.store import Artifact, Facts, replacing

SELECTED = "selected_data.jsonl"
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.binary(ID_BYTES)),
        ("source", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float64()),
        ("group", pa.string()),
        ("cluster", pa.int64()),
        ("reason", pa.string()),
    ]
)
"""Then a column ``task:NAME`` for each target task that the scorer has a score for, and the columns
of filters, such as ``language``."""
TASK = "task:"
"""The beginning of the names of details that are scores for a target task."""
NAMES = ["source", "group", "reason"]
"""Columns with few different values; only these are dictionary-encoded in the file."""
GROUP = 1 << 20
"""Number of rows that are written at once."""
SOURCES_SHOWN = 12
"""The most sources that the terminal lists."""


def run(context: Context) -> Facts:
    """Select, check the selection, and write the selected rows in full."""
    pool = context.pool()
    table = ScoreTable.open(context.spec.inputs["score"])
    if len(table) != len(pool):
        raise StageError(
            f"{context.spec.inputs['score']} holds {len(table)} scores for a pool of {len(pool)}",
            hint="some of its files are missing: rerun the stage with --fresh score",
        )
    offered, left = without_left_out(table, marks_of(context.spec.inputs))
    rows, facts = choose(context.part, offered, context.folder, context.job, left)
    if left is not None:
        write_left_out(context.folder, table, table.score(), left)
    if context.spec.progress != "none":
        for warning in facts.get("warnings", ()):
            print(f"  {warning}", file=sys.stderr)  # noqa: T201
    with context.job.progress.task("write", len(rows)) as advance:
        write_rows(context.folder, pool, rows, table.score(), advance)
    score = Artifact.load(context.spec.inputs["score"])
    card = dataset_card(facts, context.spec, score, SELECTED)
    (context.folder / CARD).write_text(card, encoding="utf-8")
    return facts


def choose(
    part: Selector, table: ScoreTable, folder: Path, job: Job, left: LeftOut | None = None
) -> tuple[np.ndarray, Facts]:
    """Let the selector choose, check the choice, and write it as a table.

    Args:
        part: the selector.
        table: the scores that it may choose from.
        folder: where to write.
        job: what the selector may know of its run.
        left: what filters leave out of the table.

    Returns:
        The kept rows, int64, the best first; and how many of how many were kept, in all and by
        source.
    """
    selection = part.select(table, job)
    scores = table.score()
    rows = np.asarray(selection.rows, dtype=np.int64)
    _check(rows, scores)
    codes, names = table.sources()
    if left is not None and selection.reason is None:
        selection = replace(selection, reason=best_of(left, rows))
    known = left.columns if left is not None else {}
    _write_table(folder, selection, rows, table, scores, (codes, names), known)
    offered = np.bincount(codes, minlength=len(names)).tolist()
    kept = np.bincount(codes[rows], minlength=len(names)).tolist()
    sources = {name: {"kept": kept[code], "of": offered[code]} for code, name in enumerate(names)}
    facts: dict[str, Any] = {"kept": len(rows), "of": len(scores), "sources": sources}
    if left is not None:
        facts["left_out"] = left.counts(codes, names)
    for column, values in known.items():
        facts[f"{column}s"] = counts_by_source(values.take(pa.array(rows)), codes[rows], names)
    if selection.warnings:
        facts["warnings"] = list(selection.warnings)
    return rows, facts


def summary(facts: Facts) -> str:
    """Return how many rows were kept, and below it what filters left out of each source."""
    left: dict[str, dict[str, int]] = facts.get("left_out", {})
    lines = [f"kept {facts['kept']:,}, of {facts['of']:,}"]
    if left:
        total = sum(sum(counts.values()) for counts in left.values())
        lines[0] += f", left out by filters {total:,}"
    largest = sorted(left.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    for source, counts in largest[:SOURCES_SHOWN]:
        named = listing([f"{reason} {count:,}" for reason, count in counts.items()])
        lines.append(f"  left out of {listing([source])}: {named}")
    if len(largest) > SOURCES_SHOWN:
        lines.append(f"  and of {len(largest) - SOURCES_SHOWN:,} more sources")
    return "\n".join(lines)


def _check(rows: np.ndarray, scores: np.ndarray) -> None:
    if not len(rows):
        raise StageError(
            f"no example of {len(scores)} was selected",
            hint="change the options of [select]: a larger fraction, another threshold",
        )
    if rows.min() < 0 or rows.max() >= len(scores):
        raise StageError("the selector returned a position outside the pool")
    seen = np.zeros(len(scores), dtype=bool)
    seen[rows] = True
    if np.count_nonzero(seen) != len(rows):
        raise StageError("the selector returned a position twice")
    if not np.isfinite(scores[rows]).all():
        raise StageError("the selector kept an example that has no score")


def write_rows(
    folder: Path, pool: Pool, rows: np.ndarray, scores: np.ndarray, advance: Advance
) -> None:
    """Write the kept examples in full, one line per example, the best first."""
    with (
        replacing(folder / SELECTED, alone=True) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for line in _lines(pool, rows, scores):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            advance(1)


def _lines(pool: Pool, rows: np.ndarray, scores: np.ndarray) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), TAKEN):
        some = rows[start : start + TAKEN]
        own = zip(pool.table(some).to_pylist(), scores[some].tolist(), strict=True)
        for rank, (row, score) in enumerate(own, start=start + 1):
            yield {
                "id": row["id"].hex(),
                "source": row["source"],
                "messages": [_turn(message) for message in row["messages"]],
                "score": score,
                "rank": rank,
                "meta": row["meta"],
            }


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message in the readers' format; the usual weight is not written."""
    turn = {"role": message["role"], "content": message["content"]}
    return turn if message["trained"] else {**turn, "weight": 0}


def _write_table(
    folder: Path,
    selection: Selection,
    rows: np.ndarray,
    table: ScoreTable,
    scores: np.ndarray,
    sources: tuple[np.ndarray, tuple[str, ...]],
    known: Mapping[str, pa.Array],
) -> None:
    """Write the selection, one row group at a time; the next ones are prepared meanwhile."""
    codes, names = sources
    kept = np.zeros(len(scores), dtype=bool)
    kept[rows] = True
    # Ids are read in the table's order; counting the rows before each is cheaper than sorting.
    ids, before = table.ids(np.flatnonzero(kept)), np.cumsum(kept, dtype=np.int64)
    tasks = {name: table.detail(name)[rows] for name in table.details if name.startswith(TASK)}
    texts = [(name, pa.string()) for name in known]
    schema = pa.schema([*SCHEMA, *((name, pa.float32()) for name in tasks), *texts])

    def group(start: int) -> pa.Table:
        some = slice(start, min(start + GROUP, len(rows)))
        own = rows[some]
        words = ids.take(before.take(own) - 1, axis=0).astype(">u8")
        columns = [
            pa.array(own),
            _binary(words),
            pa.DictionaryArray.from_arrays(codes.take(own), names).cast(pa.string()),
            pa.array(np.arange(some.start + 1, some.stop + 1)),
            pa.array(scores.take(own)),
            _notes(selection.group, some),
            _clusters(selection.cluster, some),
            _notes(selection.reason, some),
            *(pa.array(values[some].astype(np.float32)) for values in tasks.values()),
            *(values.take(pa.array(own)).cast(pa.string()) for values in known.values()),
        ]
        return pa.table(columns, schema=schema)

    with (
        replacing(folder / SELECTION, alone=True) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=[*NAMES, *known]) as file,
    ):
        for piece in ahead(group, range(0, len(rows), GROUP)):
            file.write_table(piece)


def _clusters(clusters: np.ndarray | None, some: slice) -> pa.Array:
    if clusters is None:
        return pa.nulls(some.stop - some.start, pa.int64())
    own = clusters[some].astype(np.int64)
    return pa.array(own, mask=own < 0)


def _binary(words: np.ndarray) -> pa.Array:
    kind = pa.binary(ID_BYTES)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(words), [None, pa.py_buffer(words)])


def _notes(notes: Sequence[str] | pa.Array | None, some: slice) -> pa.Array:
    if notes is None:
        return pa.nulls(some.stop - some.start, pa.string())
    own = notes[some]
    return own.cast(pa.string()) if isinstance(own, pa.Array) else pa.array(list(own), pa.string())

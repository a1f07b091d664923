"""Scores made elsewhere: read from files, and matched to the examples of the pool."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selectmoe_core import DataError, Job, RawExample, Shard, ShardScores, shown
from selectmoe_core.data import Pool, content_id
from selectmoe_readers.arrays import elements_of, is_array
from selectmoe_readers.config import FileScoresConfig, RowConfig
from selectmoe_readers.endings import JSONL, PARQUET
from selectmoe_readers.files import Input, inputs
from selectmoe_readers.lines import BUFFER, guarded, lines_of, opened
from selectmoe_readers.rows import Rows, note_of

Row = Mapping[str, Any]
ID = pa.binary(16)
LONGEST_LINE = 64 << 20
BATCH = 4096
"""Rows that are read at once."""
NOT_THERE = "not in the file of scores"
NO_NUMBER = "the file of scores has no number for it"


class FileScorer:
    """Opens files of scores; see ``FileScoresConfig``."""

    def __init__(self, config: FileScoresConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise if a file is missing, or if its first row has no score or does not say whose."""
        for file in inputs(self.config.path, JSONL + PARQUET):
            next(_entries(file, self.config), None)

    @contextmanager
    def open(self, job: Job) -> Iterator["FileShardScorer"]:
        """Read the files and find the examples of the pool in them.

        Raises:
            DataError: a row cannot be used, an example is named twice with different scores, or
                examples have no score and ``missing`` is ``"stop"``.
        """
        assert job.inputs.pool is not None
        pool = Pool.open(job.inputs.pool)
        keys, values = _read(self.config)
        found = pc.index_in(_keys_of(pool, self.config.match), value_set=keys)
        place = found.fill_null(-1).to_numpy(zero_copy_only=False)
        scores = np.where(place >= 0, values[place] if len(values) else np.nan, np.nan)
        if self.config.missing == "stop" and np.isnan(scores).any():
            raise _incomplete(pool, scores, place, self.config)
        yield FileShardScorer(scores if self.config.direction == "high" else -scores, place >= 0)


class FileShardScorer:
    """Gives the scores that were found.

    Args:
        scores: of every example of the pool; NaN where there is none.
        there: whether the files have a row for it.
    """

    def __init__(self, scores: np.ndarray, there: np.ndarray) -> None:
        self._scores = scores
        self._there = there

    def score(self, shard: Shard) -> ShardScores:
        """Return the scores of a shard; an example without one has the reason."""
        scores, there = self._scores[shard.rows], self._there[shard.rows]
        without = NOT_THERE, NO_NUMBER
        pairs = zip(np.isnan(scores).tolist(), there.tolist(), strict=True)
        return ShardScores(scores, [without[known] if none else None for none, known in pairs])


def _keys_of(pool: Pool, match: str) -> pa.ChunkedArray:
    """Return what names each example of the pool."""
    if match != "original":
        return pa.chunked_array([batch.column("id") for batch in pool.batches()], ID)
    columns = [pc.struct_field(batch.column("meta"), "original_id") for batch in pool.batches()]
    # Rows without an id of their own have an empty one, which names nobody.
    named = pa.chunked_array(columns, pa.string())
    return pc.if_else(pc.equal(named, ""), pa.scalar(None, pa.string()), named)


def _read(config: FileScoresConfig) -> tuple[pa.Array, np.ndarray]:
    """Return what the rows of the files name, each once, and their numbers (NaN for none)."""
    kind = pa.string() if config.match == "original" else ID
    keys, values = [pa.array([], kind)], [np.empty(0)]
    for file in inputs(config.path, JSONL + PARQUET):
        entries = _entries(file, config)
        while some := list(islice(entries, BATCH)):
            keys.append(pa.array([key for key, _ in some], kind))
            values.append(np.array([value for _, value in some], dtype=np.float64))
    return _each_once(pa.concat_arrays(keys), np.concatenate(values), config)


def _each_once(
    keys: pa.Array, values: np.ndarray, config: FileScoresConfig
) -> tuple[pa.Array, np.ndarray]:
    unique = keys.unique()
    if len(unique) == len(keys):
        return keys, values
    place = pc.index_in(keys, value_set=unique).to_numpy(zero_copy_only=False)
    first = np.full(len(unique), len(keys), dtype=np.int64)
    np.minimum.at(first, place, np.arange(len(keys)))
    own = values[first]
    differ = ~((own[place] == values) | (np.isnan(own[place]) & np.isnan(values)))
    if differ.any():
        row = int(np.flatnonzero(differ)[0])
        key = keys[row].as_py()
        name = key.hex() if isinstance(key, bytes) else key
        raise DataError(
            f"the files of scores have two scores for {shown(name)} "
            f"({own[place][row]:g} and {values[row]:g})",
            hint=f'leave one of them (match = "{config.match}", column = "{config.column}")',
        )
    return unique, own


def _entries(file: Input, config: FileScoresConfig) -> Iterator[tuple[Any, float]]:
    """Yield what each row names and its number.

    Raises:
        DataError: a row cannot be used; the message names the file and the row.
    """
    rows = Rows(RowConfig(format=config.format, columns=config.columns), "")
    for number, row in _rows(file):
        where = f"{file.path}:{number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: a row of scores must be an object, got {shown(row)}")
        key = _named(row, where, rows, config)
        yield key, _number(_at(row, config.column, where), where, config.column)


def _rows(file: Input) -> Iterator[tuple[int, Any]]:
    if file.path.suffix in PARQUET:
        yield from _parquet_rows(file.path)
        return
    with opened(file.path, "JSON lines") as stream:
        if is_array(stream.peek(BUFFER)):
            yield from guarded(file.path, elements_of(stream, file.path, LONGEST_LINE), "row")
            return
        for number, line in guarded(file.path, lines_of(stream, LONGEST_LINE), "line"):
            try:
                yield number, json.loads(line or b"")
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file.path}:{number}: not usable JSON: {error}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: reading stopped after row {number}: {error}", hint="is it a Parquet file?"
        ) from None


def _named(row: Row, where: str, rows: Rows, config: FileScoresConfig) -> Any:  # noqa: ANN401
    """Return the key of the example that a row is for."""
    if config.match == "content":
        found = rows.example(row, where)
        if isinstance(found, RawExample):
            return content_id(found.messages)
        raise DataError(f"{where}: {found.reason}", hint="is the text in other columns?")
    value = _at(row, config.id, where)
    if config.match == "original":
        return note_of(value)
    try:
        key = value if isinstance(value, bytes) else bytes.fromhex(str(value))
    except ValueError:
        key = b""
    if len(key) != ID.byte_width:
        raise DataError(
            f"{where}: {shown(value)} is not an id of a pool, which is 32 hexadecimal digits",
            hint='if it is the id in the data itself, set match = "original"',
        )
    return key


def _at(row: Row, column: str, where: str) -> Any:  # noqa: ANN401
    """Return the value of a column, or of one inside an object: ``scores.Reward.score``."""
    if column in row:
        return row[column]
    first, dot, rest = column.partition(".")
    inner = row.get(first)
    if dot and isinstance(inner, dict):
        return _at(inner, rest, where)
    if dot and first in row and inner is None:
        return None
    names = ", ".join(list(row)[:12])
    raise DataError(f"{where}: there is no column '{column}'", hint=f"the row has {names}")


def _number(value: Any, where: str, column: str) -> float:  # noqa: ANN401
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value) if math.isfinite(value) else math.nan
    raise DataError(f"{where}: '{column}' is {shown(value)}, not a number")


def _incomplete(
    pool: Pool, scores: np.ndarray, place: np.ndarray, config: FileScoresConfig
) -> DataError:
    without = np.flatnonzero(np.isnan(scores))
    row = int(without[0])
    first = next(pool.examples(row, row + 1))
    why = NOT_THERE if place[row] < 0 else NO_NUMBER
    hint = 'set missing = "skip" to leave them out'
    if len(without) == len(scores) and config.match != "content":
        hint = 'do the ids name these examples? match may be "id", "original" or "content"'
    return DataError(
        f"{len(without):,} of {len(scores):,} examples have no score, the first is {first.id} of "
        f"{first.source}: {why}",
        hint=hint,
    )

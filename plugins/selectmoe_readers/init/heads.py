"""The first rows of a file as plain values, and which reader reads it."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from selectmoe_core import DataError
from selectmoe_readers.arrays import elements_of, is_array
from selectmoe_readers.config import CsvConfig, JsonlConfig, ParquetConfig, RowConfig
from selectmoe_readers.endings import JSONL, PARQUET, TABLES
from selectmoe_readers.files import Input, inside
from selectmoe_readers.lines import BUFFER, lines_of, opened

HEAD = 200
"""Rows that are looked at for their columns."""
READERS: dict[str, tuple[tuple[str, ...], type[RowConfig]]] = {
    "jsonl": (JSONL, JsonlConfig),
    "csv": (TABLES, CsvConfig),
    "parquet": (PARQUET, ParquetConfig),
}
"""The readers of files: the endings that they read, and their options."""


def reader_of(files: list[Path]) -> str:
    """Return the one reader that reads every file.

    Raises:
        DataError: a file that none reads, or files of different readers.
    """
    found = {file: _reader(file) for file in files}
    kinds = sorted(set(found.values()))
    if len(kinds) > 1:
        named = ", ".join(f"{file} ({kind})" for file, kind in found.items())
        raise DataError(
            f"the files need different readers: {named}",
            hint="write them in one format, or make a recipe for each kind of file",
        )
    return kinds[0]


def _reader(path: Path) -> str:
    if not path.exists():
        raise DataError(f"there is no file or folder {path}", hint="check the path")
    names = [file.name for file in inside(path)] if path.is_dir() else [path.name]
    for kind, (endings, _) in READERS.items():
        if any(name.endswith(endings) for name in names):
            return kind
    known = ", ".join(ending for endings, _ in READERS.values() for ending in endings)
    raise DataError(
        f"{path}: its name says nothing about its format", hint=f"rename it: {known} are known"
    )


def first_rows(file: Input, kind: str) -> list[dict[str, Any]]:
    """Return the first rows of a file that are objects; broken ones are left out."""
    rows = {"jsonl": _json, "csv": _table, "parquet": _parquet}[kind](file)
    return [row for row in islice(rows, HEAD) if isinstance(row, dict)]


def _json(file: Input) -> Iterator[Any]:
    limit = JsonlConfig.model_fields["max_line_bytes"].get_default()
    with opened(file.path, "JSON lines") as stream:
        if is_array(stream.peek(BUFFER)):
            for _, row in elements_of(stream, file.path, limit):
                yield row
            return
        for _, line in lines_of(stream, limit):
            try:
                yield json.loads(line or b"null")
            except (ValueError, RecursionError):
                continue


def _table(file: Input) -> Iterator[Any]:
    from selectmoe_readers.table import column_names

    names = column_names(file, CsvConfig(path=file.path))
    yield dict.fromkeys(names, "")


def _parquet(file: Input) -> Iterator[Any]:
    with pq.ParquetFile(file.path) as table:
        for batch in table.iter_batches(batch_size=HEAD):
            yield from batch.to_pylist()

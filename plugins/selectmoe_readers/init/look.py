"""What is in files: format, columns, sources, and what of them cannot be used."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from selectmoe_core import Job, RawExample
from selectmoe_core.data import content_id, conversation_problem
from selectmoe_readers.config import RowConfig
from selectmoe_readers.endings import JSONL, PARQUET, TABLES
from selectmoe_readers.files import inputs
from selectmoe_readers.init.guesses import columns_for, used_columns
from selectmoe_readers.init.heads import READERS, first_rows, reader_of
from selectmoe_readers.rows import detect

MOST_ROWS = 200_000
"""Rows that are read; the rest of a larger file is not looked at."""
SAMPLE = 512
"""Examples that are kept, spread over what is read, to be shown and measured."""
PARTS = {
    "jsonl": ("selectmoe_readers.jsonl", "JsonlReader", JSONL),
    "csv": ("selectmoe_readers.table", "CsvReader", TABLES),
    "parquet": ("selectmoe_readers.parquet", "ParquetReader", PARQUET),
}


@dataclass
class Look:
    """What was found.

    Attributes:
        reader: the reader of the files.
        config: its options.
        row_format: the format of the rows; empty if the files have none.
        columns: the columns that are read.
        guessed: columns that were found by their names and differ from the usual ones.
        sources: usable rows of each source.
        rejected: unusable rows by their reason.
        places: where the first row with each reason is.
        duplicates: rows that repeat an earlier one.
        whole: whether all rows were read.
        sample: some of the usable rows.
    """

    reader: str
    config: RowConfig
    row_format: str = ""
    columns: list[str] = field(default_factory=list)
    guessed: Mapping[str, str] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0
    whole: bool = True
    sample: list[RawExample] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Usable rows, each once."""
        return self.sources.total()


def look_at(paths: list[Path], given: Mapping[str, Any]) -> Look:
    """Read files as the pool stage will, and count what is in them.

    Args:
        paths: files or folders.
        given: options of the reader that the user chose, with ``columns``.

    Raises:
        DataError: a file that cannot be read, or whose columns fit no format.
    """
    kind = reader_of(paths)
    module, name, endings = PARTS[kind]
    files = inputs(tuple(paths), endings)
    heads = [row for file in files[:8] for row in first_rows(file, kind)]
    own = dict(given.get("columns", {}))
    columns = columns_for([_values(row, kind) for row in heads], own)
    options = {**given, "columns": columns, "path": tuple(paths)}
    config = READERS[kind][1].model_validate(options)
    look = Look(kind, config, guessed={k: v for k, v in columns.items() if k not in own})
    _count(look, getattr(import_module(module), name)(config))
    for row in heads:
        if found := detect(_values(row, kind), config.columns):
            look.row_format = found if config.format == "auto" else config.format
            look.columns = used_columns(look.row_format, config.columns, row)
            break
    return look


def _values(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return a row that counts as having every column of its table."""
    return {name: name for name in row} if kind == "csv" else dict(row)


def _count(look: Look, reader: Any) -> None:  # noqa: ANN401
    seen: set[bytes] = set()
    number = 0
    rows = reader.read(Job(seed=0))
    for number, row in enumerate(islice(rows, MOST_ROWS), start=1):
        reason = conversation_problem(row.messages) if isinstance(row, RawExample) else row.reason
        if not isinstance(row, RawExample) or reason is not None:
            look.rejected[str(reason)] += 1
            look.places.setdefault(str(reason), row.where)
            continue
        identity = content_id(row.messages)
        if identity in seen:
            look.duplicates += 1
            continue
        seen.add(identity)
        look.sources[row.source] += 1
        if len(look.sample) < SAMPLE:
            look.sample.append(row)
        elif number % (1 + number // SAMPLE) == 0:  # ever fewer, so that all of the file counts
            look.sample[number % SAMPLE] = row
    look.whole = number < MOST_ROWS or next(rows, None) is None

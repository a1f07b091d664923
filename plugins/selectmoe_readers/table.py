"""Tables of text (CSV and TSV), one block of rows at a time.

Arrow gives rows with too many or too few values to a function as text, and ends the file if such a
row is not UTF-8. So it reads every byte as a character (Latin-1), and each value is decoded here.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import csv

from selectmoe_core import DataError, Job, RawExample, RawPair, Reject
from selectmoe_readers.config import CsvConfig
from selectmoe_readers.endings import TABLES
from selectmoe_readers.files import Input, inputs
from selectmoe_readers.lines import BYTE_ORDER_MARK, opened
from selectmoe_readers.parquet import NOT_UTF8
from selectmoe_readers.preferences import PairRows
from selectmoe_readers.rows import Made, Rows, RowsOf

ENCODING = "latin-1"


class CsvReader:
    """Reads CSV and TSV files, one after another."""

    def __init__(self, config: CsvConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` if a file is missing or is not a table."""
        for file in inputs(self.config.path, TABLES):
            _header(file, self.config)

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        for file in inputs(self.config.path, TABLES):
            yield from _read(file, self.config, Rows(self.config, file.source))

    def pairs(self, job: Job) -> Iterator[RawPair | Reject]:  # noqa: ARG002
        """Yield every row as two answers to one prompt, or as a reject with its reason."""
        for file in inputs(self.config.path, TABLES):
            yield from _read(file, self.config, PairRows(self.config, file.source))


class _Broken:
    """Collects the rows that have more or fewer values than the table has columns."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def __call__(self, row: csv.InvalidRow) -> str:
        reason = f"the row has {row.actual_columns} values, the table has {row.expected_columns}"
        self.rows.append((row.number, reason))
        return "skip"


def _read(file: Input, config: CsvConfig, rows: RowsOf[Made]) -> Iterator[Made | Reject]:
    broken, number = _Broken(), 1
    names = _header(file, config)
    if not names:
        return
    # As bytes, so that no value is read as a number.
    types = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()))
    with _table(file) as stream:
        try:
            reader = csv.open_csv(stream, _reading(config), _parsing(file, config, broken), types)
            for batch in reader:
                for values in batch.to_pylist():
                    number += 1
                    while broken.rows and broken.rows[0][0] <= number:
                        yield _reject(rows, file, broken.rows.pop(0))
                        number += 1
                    yield _row(values, rows, f"{file.shown}:{number}")
        except pa.ArrowException as error:
            raise _stopped(file, number, error) from error
        for row in broken.rows:
            yield _reject(rows, file, row)


def _row(values: dict[str, bytes], rows: RowsOf[Made], where: str) -> Made | Reject:
    try:
        texts: dict[str, Any] = {
            _text(name): _text(value.decode()) or None for name, value in values.items()
        }
    except UnicodeDecodeError:
        return Reject(rows.source, where, NOT_UTF8)
    return rows.example(texts, where)


def _reject(rows: RowsOf[Made], file: Input, broken: tuple[int, str]) -> Reject:
    return Reject(rows.source, f"{file.shown}:{broken[0]}", broken[1])


def _text(read: str) -> str:
    """Return what the bytes are in UTF-8 that were read as Latin-1."""
    return read if read.isascii() else read.encode(ENCODING).decode()


@contextmanager
def _table(file: Input) -> Iterator[io.BufferedReader]:
    """Open a table after its byte order mark."""
    with opened(file.path, "a table") as stream:
        if stream.peek(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK):
            stream.read(len(BYTE_ORDER_MARK))
        yield stream


def column_names(file: Input, config: CsvConfig) -> list[str]:
    """Return the names of the columns as a user knows them."""
    return [_text(name) for name in _header(file, config)]


def _header(file: Input, config: CsvConfig) -> list[str]:
    """Return the names of the columns as Arrow sees them; none if the file is empty."""
    with _table(file) as stream:
        if not stream.peek(1):
            return []
        try:
            names = csv.open_csv(
                stream, _reading(config), _parsing(file, config, _Broken())
            ).schema.names
            texts = [_text(name) for name in names]
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise _stopped(file, 0, error) from error
    if len(set(names)) < len(names):
        raise DataError(
            f"{file.path} has two columns of one name: {', '.join(texts)}",
            hint="the first line must have a different name for each column",
        )
    return list(names)


def _reading(config: CsvConfig) -> csv.ReadOptions:
    return csv.ReadOptions(use_threads=False, block_size=config.max_row_bytes, encoding=ENCODING)


def _parsing(file: Input, config: CsvConfig, broken: _Broken) -> csv.ParseOptions:
    tabs = ".tsv" in file.path.suffixes
    return csv.ParseOptions(
        delimiter=config.delimiter or ("\t" if tabs else ","),
        newlines_in_values=True,
        invalid_row_handler=broken,
    )


def _stopped(file: Input, number: int, error: Exception) -> DataError:
    return DataError(
        f"{file.path}: reading stopped after row {number}: {str(error)[:200]}",
        hint="fix the table; for longer rows raise 'max_row_bytes'",
    )

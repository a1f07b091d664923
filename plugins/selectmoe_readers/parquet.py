"""Parquet files, a batch of rows at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core import DataError, Job, RawExample, RawPair, Reject, utf8_text
from selectmoe_readers.config import ParquetConfig
from selectmoe_readers.endings import PARQUET
from selectmoe_readers.files import Input, inputs
from selectmoe_readers.kinds import HEAD, what_it_is
from selectmoe_readers.preferences import PairRows
from selectmoe_readers.rows import Made, Rows, RowsOf

BATCH_ROWS = 512
FAILURES = (OSError, ValueError, pa.ArrowException)
"""What pyarrow raises for a file that is damaged, or that it cannot read."""
NOT_UTF8 = "not UTF-8: a text column has other bytes"


class ParquetReader:
    """Reads Parquet files, one after another."""

    def __init__(self, config: ParquetConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` if a file is missing or is not a Parquet file."""
        for file in inputs(self.config.path, PARQUET):
            _open(file, ())[0].close()

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        for file in inputs(self.config.path, PARQUET):
            yield from _read(file, Rows(self.config, file.source))

    def pairs(self, job: Job) -> Iterator[RawPair | Reject]:  # noqa: ARG002
        """Yield every row as two answers to one prompt, or as a reject with its reason."""
        for file in inputs(self.config.path, PARQUET):
            yield from _read(file, PairRows(self.config, file.source))


def _read(file: Input, rows: RowsOf[Made]) -> Iterator[Made | Reject]:
    start = 0
    parquet, wanted = _open(file, rows.columns)
    with parquet:
        # Row groups can be large, so their pages are read when needed, not all in advance.
        batches = parquet.iter_batches(BATCH_ROWS, columns=wanted or None)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except FAILURES as error:
                raise _damaged(file, f"reading stopped after row {start}", error) from error
            yield from examples_of(batch, rows, file.shown, start)
            start += batch.num_rows


def examples_of(
    batch: pa.RecordBatch, rows: RowsOf[Made], shown: str, start: int
) -> Iterator[Made | Reject]:
    """Yield the rows of a batch whose first is row ``start``, counted from 0."""
    for number, row in enumerate(_row_values(batch), start=start + 1):
        where = f"{shown}:{number}"
        found = row if isinstance(row, str) else rows.example(row, where)
        yield Reject(rows.source, where, found) if isinstance(found, str) else found


def _row_values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Yield each row, or why its values cannot be read."""
    try:
        values = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values = [_row_value(batch.slice(number, 1)) for number in range(batch.num_rows)]
    yield from values


def _row_value(row: pa.RecordBatch) -> dict[str, Any] | str:
    try:
        return dict(row.to_pylist()[0])
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, OverflowError, pa.ArrowException) as error:  # a date beyond year 9999
        return f"a value cannot be read: {_line(error)}"


def _open(file: Input, columns: Sequence[str]) -> tuple[pq.ParquetFile, list[str]]:
    """Return the open file, and which of these columns it has."""
    try:
        place = str(file.path)
        source = place if utf8_text(place) == place else file.path.open("rb")
        parquet = pq.ParquetFile(source, memory_map=True, pre_buffer=False)
        names = list(parquet.schema_arrow.names)
    except FAILURES as error:
        raise _not_parquet(file, error) from error
    wanted = [name for name in columns if name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(
                f"{file.path} has the column '{name}' more than once",
                hint="write the file with different column names",
            )
    return parquet, wanted


def _not_parquet(file: Input, error: Exception) -> DataError:
    """Return the error for a file that pyarrow cannot open."""
    with file.path.open("rb") as opened:
        head = opened.read(HEAD)
    if not head.startswith(b"PAR1"):
        if other := what_it_is(head):
            return DataError(f"{file.path} is {other[0]}, not Parquet", hint=other[1])
        if head.lstrip()[:1] in (b"{", b"["):
            return DataError(f"{file.path} is JSON, not Parquet", hint='use = "jsonl"')
    return _damaged(file, "not a readable Parquet file", error)


def _damaged(file: Input, what: str, error: Exception) -> DataError:
    return DataError(f"{file.path}: {what}: {_line(error)}", hint="download the file again")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__

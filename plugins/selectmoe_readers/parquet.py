"""Parquet files, a batch of rows at a time."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core import DataError, Job, RawExample, Reject
from selectmoe_readers.config import ParquetConfig
from selectmoe_readers.files import PARQUET, Input, inputs
from selectmoe_readers.rows import Rows, columns_of

BATCH_ROWS = 512
NOT_UTF8 = "not UTF-8: a text column holds other bytes"


class ParquetReader:
    """Reads Parquet files, one after the other."""

    def __init__(self, config: ParquetConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` where a file is missing or is no Parquet file."""
        for file in inputs(self.config.path, PARQUET):
            _open(file).close()

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        for file in inputs(self.config.path, PARQUET):
            yield from _read(file, self.config)


def _read(file: Input, config: ParquetConfig) -> Iterator[RawExample | Reject]:
    rows, start = Rows(config, file.source), 0
    with _open(file) as parquet:
        wanted = [name for name in columns_of(config) if name in parquet.schema_arrow.names]
        # Row groups can be large: their pages are read as they are needed, not all beforehand.
        batches = parquet.iter_batches(BATCH_ROWS, columns=wanted or None)
        try:
            for batch in batches:
                yield from examples_of(batch, rows, file.shown, start)
                start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file.path}: reading stopped after row {start}: {error}",
                hint="fetch the file again",
            ) from error


def examples_of(
    batch: pa.RecordBatch, rows: Rows, shown: str, start: int
) -> Iterator[RawExample | Reject]:
    """Yield the rows of a batch whose first is row ``start``, counted from 0."""
    for number, row in enumerate(_row_values(batch), start=start + 1):
        where = f"{shown}:{number}"
        yield Reject(rows.source, where, NOT_UTF8) if row is None else rows.example(row, where)


def _row_values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """Yield each row; ``None`` for one whose text is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _open(file: Input) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file.path, memory_map=True, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file.path} is not a Parquet file that can be read: {error}",
            hint="fetch the file again, or use the reader of its format",
        ) from error

"""JSON lines, and files that are one JSON array."""

import json
import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from selectmoe_core import DataError, Job, RawExample, RawPair, Reject, shown
from selectmoe_readers.arrays import elements_of, is_array
from selectmoe_readers.config import JsonlConfig, LineConfig
from selectmoe_readers.endings import JSONL
from selectmoe_readers.files import Input, inputs
from selectmoe_readers.kinds import looks_like_table
from selectmoe_readers.lines import BUFFER, guarded, lines_of, opened
from selectmoe_readers.preferences import PairRows
from selectmoe_readers.rows import Made, MakeRows, Rows, RowsOf, columns_of

OPENS_OVER_LINES = re.compile(rb'\s*\{[ \t\r]*\n\s*"')
"""The start of an object that spans several lines."""


class JsonlReader:
    """Reads files of JSON lines, one after another."""

    def __init__(self, config: JsonlConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` if a file is missing."""
        inputs(self.config.path, JSONL)

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        yield from read_lines(inputs(self.config.path, JSONL), self.config, Rows)

    def pairs(self, job: Job) -> Iterator[RawPair | Reject]:  # noqa: ARG002
        """Yield every row as two answers to one prompt, or as a reject with its reason."""
        yield from read_lines(inputs(self.config.path, JSONL), self.config, PairRows)


def read_lines(
    files: Iterable[Input], config: LineConfig, make: MakeRows[Made]
) -> Iterator[Made | Reject]:
    """Yield every row of the files as ``make`` reads it, or as a reject with its reason."""
    for file in files:
        rows = make(config, file.source)
        with opened(file.path, "JSON lines") as stream:
            head = stream.peek(BUFFER)
            if is_array(head):
                yield from _array(stream, file, config, rows)
            else:
                _check_shape(head, file.path, config)
                yield from _lines(stream, file, config, rows)


def _array(
    stream: BufferedReader, file: Input, config: LineConfig, rows: RowsOf[Made]
) -> Iterator[Made | Reject]:
    elements = elements_of(stream, file.path, config.max_line_bytes)
    for number, row in guarded(file.path, elements, "row"):
        yield rows.example(row, f"{file.shown}:{number}")


def _lines(
    stream: BufferedReader, file: Input, config: LineConfig, rows: RowsOf[Made]
) -> Iterator[Made | Reject]:
    for number, line in guarded(file.path, lines_of(stream, config.max_line_bytes), "line"):
        where = f"{file.shown}:{number}"
        if line is None:
            reason = f"the line is longer than {config.max_line_bytes:,} bytes"
            yield Reject(rows.source, where, f"{reason} (max_line_bytes)")
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            yield Reject(rows.source, where, _broken(error, line))
            continue
        found = rows.example(row, where)
        if isinstance(found, Reject) and not rows.format and not stream.peek(1):
            _check_object(row, file.path)
        yield found


def _check_shape(head: bytes, path: Path, config: LineConfig) -> None:
    """Raise if a file is not JSON lines at all, instead of rejecting each of its lines."""
    if OPENS_OVER_LINES.match(head):
        raise DataError(
            f"{path} has JSON objects that span several lines, not one object per line",
            hint="write each row on one line: jq -c . FILE",
        )
    if header := looks_like_table(head, columns_of(config)):
        raise DataError(
            f"{path} is a table (CSV), not JSON lines: it starts with {shown(header)}",
            hint='use = "csv"',
        )


def _check_object(row: object, path: Path) -> None:
    """Raise if the only row of a file is an object that contains the rows."""
    for key, value in row.items() if isinstance(row, dict) else ():
        several = isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict)
        if several or (isinstance(value, dict) and path.name.endswith(".json")):
            raise DataError(
                f"{path} is one JSON object, not rows: {shown(key)} holds {len(value):,} entries",
                hint="write the rows as a JSON array or one object per line: jq -c '.KEY[]' FILE",
            )


def _broken(error: ValueError | RecursionError, line: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
    if isinstance(error, RecursionError):
        return "not usable JSON: nested too deeply"
    if not isinstance(error, json.JSONDecodeError):
        return f"not usable JSON: {error}"
    column = min(error.pos, len(error.doc.rstrip("\r\n"))) + 1
    return f"not valid JSON: {error.msg} at column {column}"

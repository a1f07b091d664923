"""JSON lines."""

import json
from collections.abc import Iterable, Iterator

from selectmoe_core import Job, RawExample, Reject
from selectmoe_readers.config import JsonlConfig, LineConfig
from selectmoe_readers.files import JSONL, Input, inputs
from selectmoe_readers.lines import lines_of
from selectmoe_readers.rows import Rows


class JsonlReader:
    """Reads files of JSON lines, one after the other."""

    def __init__(self, config: JsonlConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:  # noqa: ARG002
        """Raise a ``DataError`` where a file is missing."""
        inputs(self.config.path, JSONL)

    def read(self, job: Job) -> Iterator[RawExample | Reject]:  # noqa: ARG002
        """Yield every row as an example or as a reject with its reason."""
        yield from read_lines(inputs(self.config.path, JSONL), self.config)


def read_lines(files: Iterable[Input], config: LineConfig) -> Iterator[RawExample | Reject]:
    """Yield every line of the files as an example or as a reject with its reason."""
    for file in files:
        rows = Rows(config, file.source)
        for number, line in lines_of(file.path, config.max_line_bytes):
            where = f"{file.shown}:{number}"
            if line is None:
                reason = f"the line is longer than {config.max_line_bytes:,} bytes"
                yield Reject(rows.source, where, f"{reason} (max_line_bytes)")
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                yield Reject(rows.source, where, _broken(error, line, number))
                continue
            yield rows.example(row, where)


def _broken(error: ValueError | RecursionError, line: bytes, number: int) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
    if isinstance(error, RecursionError):
        return "not usable JSON: nested too deeply"
    if not isinstance(error, json.JSONDecodeError):
        return f"not usable JSON: {error}"
    column = min(error.pos, len(error.doc.rstrip("\r\n"))) + 1
    reason = f"not valid JSON: {error.msg} at column {column}"
    if number == 1 and line.lstrip().startswith(b"["):
        reason += " (is the file one JSON array? it must hold one object a line)"
    return reason

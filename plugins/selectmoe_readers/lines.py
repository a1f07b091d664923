"""Lines of a file as bytes: U+2028 and its kin are text here, only a line feed ends a line."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from selectmoe_core import DataError
from selectmoe_readers.kinds import HEAD, PACKED, what_it_is

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BUFFER = 1 << 20
LONGEST = 1 << 30
"""Bytes of a line that are passed over; a longer one means that the file holds no lines."""
SUFFIXES = {".gz": "gzip", ".zst": "zstd"}

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = TypeVar("Row")


@contextmanager
def opened(path: Path, wanted: str) -> Iterator[io.BufferedReader]:
    """Open a file of text, unpacked as it goes; its content says whether it is compressed.

    Args:
        path: the file.
        wanted: what it should hold, for messages.

    Raises:
        DataError: it is something else.
    """
    try:
        with io.BufferedReader(io.FileIO(path), BUFFER) as file:
            yield _text_of(file, path, wanted)
    except OSError as error:
        raise _unreadable(path, error, "at its beginning") from error


def _text_of(file: io.BufferedReader[Any], path: Path, wanted: str) -> io.BufferedReader:
    head = file.peek(HEAD)
    packing = next((PACKED[mark] for mark in PACKED if head.startswith(mark)), None)
    named = SUFFIXES.get(path.suffix)
    if named and head and packing is None:
        raise DataError(
            f"{path} is not {named}-compressed, though its name ends in {path.suffix}",
            hint=f"rename it without {path.suffix}, or fetch the file again",
        )
    stream = file if packing is None else _unpacked(file, packing)
    other = what_it_is(stream.peek(HEAD)[:HEAD])
    if other:
        inside = "" if packing is None else f" ({packing}-compressed)"
        raise DataError(f"{path} is {other[0]}{inside}, not {wanted}", hint=other[1])
    return stream


def lines_of(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number, from 1; blank lines are left out.

    A line of more than ``limit`` bytes comes as ``None`` and is never held whole.

    Raises:
        DataError: a line does not end, such as one of a device or of binary data.
    """
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            yield number, None
            _skip_line(stream, line, number)
            continue
        if number == 1 and line.startswith(BYTE_ORDER_MARK):
            line = line[len(BYTE_ORDER_MARK) :]
        if line and not line.isspace():
            yield number, line


def guarded(path: Path, rows: Iterator[tuple[int, Row]], unit: str) -> Iterator[tuple[int, Row]]:
    """Yield what ``rows`` does; a file that cannot be read on is a ``DataError``."""
    number = 0
    try:
        for number, row in rows:
            yield number, row
    except OSError as error:
        raise _unreadable(path, error, f"after {unit} {number}") from error


def _unreadable(path: Path, error: OSError, place: str) -> DataError:
    packed = error.errno is None
    what = "its compressed data is damaged or cut short" if packed else error.strerror or error
    return DataError(
        f"{path}: reading stopped {place}: {what}",
        hint="fetch the file again" if packed else "look at the file and its disk",
    )


def _unpacked(file: BinaryIO, packing: str) -> io.BufferedReader:
    # pyarrow notices when compressed data is cut short, in both formats; zstandard does not.
    import pyarrow as pa

    stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), packing)
    return io.BufferedReader(cast("io.RawIOBase", stream), BUFFER)


def _skip_line(file: BinaryIO, line: bytes, number: int) -> None:
    skipped = 0
    while line and not line.endswith(b"\n"):
        skipped += len(line)
        if skipped > LONGEST:
            raise DataError(
                f"line {number} has more than {LONGEST:,} bytes and does not end",
                hint="JSON lines hold one object a line: is this another kind of file?",
            )
        line = file.readline(BUFFER)

"""Lines of a file as bytes: only a line feed ends a line, U+2028 and the like are text."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from selectmoe_core import DataError
from selectmoe_readers.kinds import HEAD, PACKED, what_it_is

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BUFFER = 1 << 20
LONGEST = 1 << 30
"""The longest line in bytes; a file with a longer one is not a file of lines."""
SUFFIXES = {".gz": "gzip", ".zst": "zstd"}

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = TypeVar("Row")


@contextmanager
def opened(path: Path, wanted: str) -> Iterator[io.BufferedReader]:
    """Open a file of text, decompressed while reading; its content shows whether it is compressed.

    Args:
        path: the file.
        wanted: the expected content, for messages.

    Raises:
        DataError: it has another type.
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
            hint=f"rename it without {path.suffix}, or download the file again",
        )
    stream = file if packing is None else _unpacked(file, packing)
    other = what_it_is(stream.peek(HEAD)[:HEAD])
    if other:
        inside = "" if packing is None else f" ({packing}-compressed)"
        raise DataError(f"{path} is {other[0]}{inside}, not {wanted}", hint=other[1])
    return stream


def lines_of(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number, from 1; blank lines are left out.

    A line with more than ``limit`` bytes is ``None`` and is never read into memory.

    Raises:
        DataError: a line does not end, as in a device or binary data.
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
    """Yield the items of ``rows``; an error while reading becomes a ``DataError``."""
    number = 0
    try:
        for number, row in rows:
            yield number, row
    except OSError as error:
        raise _unreadable(path, error, f"after {unit} {number}") from error


def _unreadable(path: Path, error: OSError, place: str) -> DataError:
    packed = error.errno is None
    what = "its compressed data is damaged or incomplete" if packed else error.strerror or error
    return DataError(
        f"{path}: reading stopped {place}: {what}",
        hint="download the file again" if packed else "check the file and its disk",
    )


def _unpacked(file: BinaryIO, packing: str) -> io.BufferedReader:
    # pyarrow notices incomplete compressed data in both formats; zstandard does not.
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
                hint="JSON lines have one object per line. Is this another type of file?",
            )
        line = file.readline(BUFFER)

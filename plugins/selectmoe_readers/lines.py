"""Lines of a file as bytes: U+2028 and its kin are text here, only a line feed ends a line."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from selectmoe_core import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BUFFER = 1 << 20
PACKED = {".gz": "gzip", ".zst": "zstd"}


def lines_of(path: Path, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number, from 1; blank lines are left out.

    A line of more than ``limit`` bytes comes as ``None`` and is never held whole.

    Raises:
        DataError: where the file cannot be read or its compressed data is damaged.
    """
    number = 0
    try:
        with opened(path) as file:
            while line := file.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    _skip_line(file, line)
                    yield number, None
                    continue
                if number == 1 and line.startswith(BYTE_ORDER_MARK):
                    line = line[len(BYTE_ORDER_MARK) :]
                if line and not line.isspace():
                    yield number, line
    except OSError as error:
        packed = path.suffix in PACKED and error.errno is None
        what = "its compressed data is damaged or cut short" if packed else error.strerror or error
        raise DataError(
            f"{path}: reading stopped after line {number}: {what}",
            hint="fetch the file again" if packed else "look at the file and its disk",
        ) from error


def opened(path: Path) -> BinaryIO:
    """Open a file for reading bytes, unpacking ``.gz`` and ``.zst`` as it goes."""
    kind = PACKED.get(path.suffix)
    if kind is None or not path.stat().st_size:
        return path.open("rb", buffering=BUFFER)
    # pyarrow notices when compressed data is cut short, in both formats; zstandard does not.
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression=kind, buffer_size=BUFFER)
    return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", stream), BUFFER))


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(BUFFER)

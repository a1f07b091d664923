"""Copy and compare parts of files, several at once, in little memory."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from selectmoe_olmoe.convert.layout import Run

THREADS = 4
"""Parts that are read at once: a network disk answers several requests as fast as one."""
PIECE = 64 << 20
"""Bytes that a thread copies at a time."""
BUFFER = 4 << 20


@contextmanager
def readers() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; if the block fails, work that has not begun is dropped."""
    pool = ThreadPoolExecutor(THREADS, "read")
    try:
        yield pool
    finally:
        # After a successful block there is nothing to drop.
        pool.shutdown(wait=True, cancel_futures=True)


def copy_run(source: Path, target: Path, run: Run) -> int:
    """Copy one part into an existing file; return its bytes.

    On Linux the kernel copies, and learns in advance what will be read.

    Raises:
        OSError: the disk is full, or one of the files cannot be read or written.
    """
    with source.open("rb", buffering=0) as read, target.open("r+b", buffering=0) as write:
        write.seek(run.target)
        if sys.platform == "linux":
            os.posix_fadvise(read.fileno(), run.source, run.size, os.POSIX_FADV_WILLNEED)
            done = 0
            while done < run.size:
                place, left = run.source + done, run.size - done
                done += _some(os.sendfile(write.fileno(), read.fileno(), place, left), source)
        else:
            read.seek(run.source)
            left = run.size
            while left:
                piece = read.read(min(left, BUFFER))
                left -= _some(len(piece), source)
                _write(write, piece)
    return run.size


def same_bytes(one: Path, other: Path, run: Run) -> bool:
    """Return whether a part has the same bytes in both files; two buffers are in memory."""
    with one.open("rb", buffering=0) as a, other.open("rb", buffering=0) as b:
        a.seek(run.source)
        b.seek(run.target)
        for piece in run.pieces(BUFFER):
            read = a.read(piece.size)
            if len(read) != piece.size or read != b.read(piece.size):
                return False
    return True


def read_at(source: Path, place: int, size: int) -> bytes:
    """Return bytes of a file."""
    with source.open("rb") as file:
        file.seek(place)
        return file.read(size)


def write_at(target: Path, place: int, content: bytes) -> None:
    """Write bytes into an existing file."""
    with target.open("r+b") as file:
        file.seek(place)
        file.write(content)


def _some(count: int, source: Path) -> int:
    if not count:
        raise EOFError(f"{source} became shorter while it was read")
    return count


def _write(file: FileIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]

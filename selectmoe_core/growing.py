"""Tokens that are read while more of them are being written."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from selectmoe_core.chat import ChatFormat, EncodedExample
from selectmoe_core.encoding import Encoded, Joined
from selectmoe_core.token_files import rows_written

LOOK = 0.05
"""Seconds between two looks at what another process has written."""


class Source(Protocol):
    """Where growing tokens come from."""

    def until(self, stop: int | None) -> Encoded:
        """Wait until the rows before ``stop`` are there, or all; return at least these."""
        ...


class Growth:
    """How much of a pool's tokens is there: one thread writes, others wait for what they need.

    Args:
        folder: where they are written.
        chat: how the examples are rendered.
    """

    def __init__(self, folder: Path, chat: ChatFormat) -> None:
        self.folder, self.chat = folder, chat
        self._changed = threading.Condition()
        self._rows = 0
        self._ready = threading.Event()
        self._unwanted = False
        self._whole: Future[Encoded] = Future()
        self._open = Encoded(folder, chat, written=0)

    def add(self, rows: float) -> None:
        """Say that the tokens of so many further rows are there, behind the ones before.

        Raises:
            CancelledError: nobody wants them any more.
        """
        if self._unwanted:
            raise CancelledError
        with self._changed:
            self._rows += int(rows)
        self._ready.set()
        self._wake()

    @property
    def begun(self) -> bool:
        """Whether any rows are there."""
        return self._rows > 0

    def wait_for_files(self) -> None:
        """Wait until whatever an earlier run left in the files is gone, or there will be none."""
        self._ready.wait()

    def stop(self) -> None:
        """Have the thread that writes give up at its next rows."""
        self._unwanted = True

    def ends_with(self, whole: Future[Encoded]) -> None:
        """Say what all of the tokens will be, or the error that there will be none."""
        self._whole = whole
        whole.add_done_callback(lambda _: self._ready.set())
        whole.add_done_callback(lambda _: self._wake())

    def tokens(self) -> Encoded:
        """Return all tokens where they are there, else a view that waits for what it is asked."""
        if self._whole.done():
            return self._whole.result()
        return Growing(self.folder, self.chat, growth=self)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, stop: int | None) -> Encoded:
        """Wait until the rows before ``stop`` are there, or all; return at least these.

        Raises:
            Exception: what the thread that writes has raised.
        """
        if stop is None or self._whole.done():
            return self._whole.result()
        if stop > (self._open.written or 0):
            with self._changed:
                self._changed.wait_for(lambda: self._rows >= stop or self._whole.done())
                rows = self._rows
            if self._whole.done():
                return self._whole.result()
            self._open = Encoded(self.folder, self.chat, written=rows)
        return self._open


class Followed:
    """How much of a pool's tokens is there that another process of this host writes.

    Args:
        folder: where it writes them.
        chat: how the examples are rendered.
        whole: returns all tokens once they are there, until then ``None``.
    """

    def __init__(self, folder: Path, chat: ChatFormat, whole: Callable[[], Encoded | None]) -> None:
        self.folder, self.chat = folder, chat
        self._find = whole
        self._found: Encoded | None = None
        self._open = Encoded(folder, chat, written=0)

    def tokens(self) -> Encoded:
        """Return all tokens where they are there, else a view that waits for what it is asked."""
        return self._whole() or Growing(self.folder, self.chat, growth=self)

    def until(self, stop: int | None) -> Encoded:
        """Wait until the rows before ``stop`` are there, or all; return at least these."""
        while True:
            if stop is not None and stop <= (self._open.written or 0):
                return self._open
            if whole := self._whole():
                return whole
            if stop is None or (rows := rows_written(self.folder)) < stop:
                time.sleep(LOOK)
            else:
                self._open = Encoded(self.folder, self.chat, written=rows)

    def _whole(self) -> Encoded | None:
        self._found = self._found or self._find()
        return self._found


@dataclass(frozen=True, eq=False)
class Growing(Encoded):
    """A pool's tokens while they are being written: who asks for rows waits for these alone.

    Anything that depends on all rows (lengths, counts, views) waits for the last one.

    Attributes:
        growth: what is there.
    """

    growth: Source = field(kw_only=True, repr=False)

    def joined(self, rows: np.ndarray) -> Joined:
        """Return the tokens of the given rows, int64 ``[rows]``, in the given order."""
        stop = int(rows.max()) + 1 if len(rows) else 0
        return self.growth.until(stop).joined(rows)

    def __getitem__(self, row: int) -> EncodedExample:
        return self.growth.until(row + 1 if row >= 0 else None)[row]

    def __reduce__(self) -> tuple[type[Encoded], tuple[object, ...]]:
        return self._all.__reduce__()

    @property
    def _all(self) -> Encoded:
        return self.growth.until(None)

    @property
    def _table(self) -> np.ndarray:
        return self._all._table  # noqa: SLF001

"""Tokens that are read while more of them are being written."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selectmoe_core.tokens.chat import ChatFormat, EncodedExample
from selectmoe_core.tokens.encoding import Encoded, Joined
from selectmoe_core.tokens.files import rows_written

LOOK = 0.05
"""Seconds between two looks at what another process has written."""


class Source(ABC):
    """How much of a pool's tokens is there, for those who wait for what they need.

    Args:
        folder: where they are written.
        chat: how the examples are rendered.
    """

    def __init__(self, folder: Path, chat: ChatFormat) -> None:
        self.folder, self.chat = folder, chat
        self._open = Encoded(folder, chat, written=0)

    def tokens(self) -> Encoded:
        """Return all tokens where they are there, else a view that waits for what it is asked."""
        whole = self._whole()
        return Growing(self.folder, self.chat, growth=self) if whole is None else whole

    def until(self, stop: int | None) -> Encoded:
        """Wait until the rows before ``stop`` are there, or all; return at least these.

        Raises:
            Exception: what has kept them from being made.
        """
        opened = self._open
        if stop is None or stop > (opened.written or 0):
            rows = self._wait(stop)
            whole = self._whole()
            if whole is not None:
                return whole
            opened = self._open = Encoded(self.folder, self.chat, written=rows)
        return opened

    @abstractmethod
    def _whole(self) -> Encoded | None:
        """Return all tokens, or ``None`` before the last one is there."""

    @abstractmethod
    def _wait(self, stop: int | None) -> int:
        """Wait until the rows before ``stop`` are there, or all; return how many are."""


class Growth(Source):
    """Tokens that a thread of this process writes."""

    def __init__(self, folder: Path, chat: ChatFormat) -> None:
        super().__init__(folder, chat)
        self._changed = threading.Condition()
        self._rows = 0
        self._ready = self._unwanted = False
        self._future: Future[Encoded] = Future()

    def add(self, rows: float) -> None:
        """Say that the tokens of so many further rows are there, behind the ones before.

        Raises:
            CancelledError: nobody wants them any more.
        """
        if self._unwanted:
            raise CancelledError
        with self._changed:
            self._rows += int(rows)
            self._ready = True
        self._wake()

    @property
    def begun(self) -> bool:
        """Whether any rows are there."""
        return self._rows > 0

    def wait_for_files(self) -> None:
        """Wait until whatever an earlier run left in the files is gone, or there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._future.done())

    def stop(self) -> None:
        """Have the thread that writes give up at its next rows."""
        self._unwanted = True

    def ends_with(self, whole: Future[Encoded]) -> None:
        """Say what all of the tokens will be, or the error that there will be none."""
        self._future = whole
        whole.add_done_callback(lambda _: self._wake())

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _whole(self) -> Encoded | None:
        return self._future.result() if self._future.done() else None

    def _wait(self, stop: int | None) -> int:
        if stop is None:
            return len(self._future.result())
        with self._changed:
            self._changed.wait_for(lambda: self._rows >= stop or self._future.done())
            return self._rows


class Followed(Source):
    """Tokens that another process of this host writes.

    Args:
        folder: where they are written.
        chat: how the examples are rendered.
        find: returns all tokens once they are there, until then ``None``.
    """

    def __init__(self, folder: Path, chat: ChatFormat, find: Callable[[], Encoded | None]) -> None:
        super().__init__(folder, chat)
        self._find = find
        self._found: Encoded | None = None

    def _whole(self) -> Encoded | None:
        if self._found is None:
            self._found = self._find()
        return self._found

    def _wait(self, stop: int | None) -> int:
        while True:
            whole, rows = self._whole(), rows_written(self.folder)
            if whole is not None:
                return len(whole)
            if stop is not None and rows >= stop:
                return rows
            time.sleep(LOOK)


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

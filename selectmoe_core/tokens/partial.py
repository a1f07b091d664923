"""Tokens that can be read while more of them are being written."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from selectmoe_core.tokens.chat import EncodedExample
from selectmoe_core.tokens.encoding import Encoded, Joined, TokenCounts

LOOK = 0.02
"""Seconds between two checks of what has been written."""


@dataclass(frozen=True, eq=False)
class PartialEncoded(Encoded):
    """A pool's tokens while they are being written: a reader waits only for the rows it reads.

    Anything that depends on all rows (lengths, counts, views) waits for the last one.

    Attributes:
        whole: returns all tokens when they are complete and ``None`` before; raises the error that
            stopped their making.
        rows_written: returns how many rows can be read so far.
    """

    whole: Callable[[], Encoded | None] = field(kw_only=True, repr=False)
    rows_written: Callable[[], int] = field(kw_only=True, repr=False)
    _opened: list[Encoded] = field(default_factory=list, kw_only=True, repr=False)

    def now(self) -> Encoded:
        """Return all tokens if they are complete, otherwise this view."""
        if self._opened and self._opened[0].written is None:
            return self._opened[0]
        whole = self.whole()
        if whole is None:
            return self
        self._opened[:] = [whole]
        return whole

    def until(self, stop: int | None) -> Encoded:
        """Wait until the rows before ``stop``, or all, are written; return at least these."""
        if stop is not None and self._opened and stop <= (self._opened[0].written or 0):
            return self._opened[0]
        while (found := self.now()) is self:
            rows = self.rows_written()
            if stop is not None and stop <= rows:
                self._opened[:] = [Encoded(self.folder, self.chat, written=rows)]
                return self._opened[0]
            time.sleep(LOOK)
        return found

    def joined(self, rows: np.ndarray) -> Joined:
        """Return the tokens of the given rows, int64 ``[rows]``, in the given order."""
        return self.until(int(rows.max()) + 1 if len(rows) else 0).joined(rows)

    def __getitem__(self, row: int) -> EncodedExample:
        return self.until(row + 1 if row >= 0 else None)[row]

    def __reduce__(self) -> tuple[type[Encoded], tuple[object, ...]]:
        return self.until(None).__reduce__()

    # These wait before they compute anything: Python 3.11 computes a cached property under a lock
    # that all instances share, and the thread that makes the tokens needs lengths too.

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 ``[examples]``."""
        return self.until(None).lengths

    @property
    def sources(self) -> dict[str, TokenCounts]:
        """Token counts per source, by name."""
        return self.until(None).sources

    @property
    def _table(self) -> np.ndarray:
        return self.until(None)._table  # noqa: SLF001

"""The files of a pool's tokens, and which part of them a stopped run has completed."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from selectmoe_core.store import write_json

FORMAT = 1
"""The version of these files; a new number makes them, and what reads them, again."""
IDS, PARTS, ROWS, NAMES = "ids.bin", "parts.bin", "rows.bin", "sources.json"
KEPT = "kept.json"
KEEP_SECONDS = 20.0
"""Seconds between two records of how much is safely on the disk: a kill can cost this much."""

ROW = np.dtype([("stop", "<i8"), ("counted", "<i4"), ("source", "<i4"), ("cut", "?")])
"""One example: where its tokens end, how many count, its source, whether it was truncated."""


@dataclass(frozen=True)
class Piece:
    """The tokens of some examples, in memory.

    Attributes:
        rows: one ``ROW`` per example; its stop counts from the first token of the piece, its source
            is an index of ``sources``.
        ids: token ids of all examples, int32 ``[tokens]``.
        parts: what each token is part of, uint8 ``[tokens]``.
        sources: the names of their sources.
    """

    rows: np.ndarray
    ids: np.ndarray
    parts: np.ndarray
    sources: tuple[str, ...]

    def moved(self, codes: dict[str, int], position: int) -> np.ndarray:
        """Return the rows of a piece that starts at a position, with sources numbered by ``codes``.

        Sources without a number get one.
        """
        rows = self.rows.copy()
        rows["stop"] += position
        of_piece = [codes.setdefault(name, len(codes)) for name in self.sources]
        rows["source"] = np.array(of_piece, dtype=np.int32)[self.rows["source"]]
        return rows


def sizes_of(rows: int, tokens: int) -> dict[str, int]:
    """Return the size of each file in bytes for this many rows and tokens."""
    return {ROWS: rows * ROW.itemsize, IDS: tokens * 4, PARTS: tokens}


def _reach(folder: Path, sizes: Mapping[str, int]) -> bool:
    return all((folder / name).stat().st_size >= size for name, size in sizes.items())


@dataclass(frozen=True)
class Kept:
    """How much of an unfinished run is complete and safely on the disk.

    Attributes:
        rows: examples.
        tokens: tokens of these examples.
        sources: the names that their rows refer to, in the order of the numbers.
    """

    rows: int = 0
    tokens: int = 0
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> "Kept":
        """Read what was kept in a folder: nothing if a file is missing, too short or damaged."""
        try:
            found = json.loads((folder / KEPT).read_bytes())
            kept = cls(int(found["rows"]), int(found["tokens"]), tuple(found["sources"]))
            whole = _reach(folder, sizes_of(kept.rows, kept.tokens))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()
        return kept if whole else cls()

    def cut(self, folder: Path) -> None:
        """Cut off the rest of the files; no process may be reading it."""
        for name, size in sizes_of(self.rows, self.tokens).items():
            if size or (folder / name).is_file():
                os.truncate(folder / name, size)


NOTHING = Kept()


def rows_written(folder: Path) -> int:
    """Return how many complete rows another process on this host has written, 0 if unclear.

    A piece is complete when all three files hold it, shortly after the first one does.
    """
    try:
        with (folder / ROWS).open("rb") as file:
            rows = file.seek(0, os.SEEK_END) // ROW.itemsize
            if not rows:
                return 0
            file.seek((rows - 1) * ROW.itemsize)
            (last,) = np.frombuffer(file.read(ROW.itemsize), ROW)
        whole = _reach(folder, sizes_of(rows, int(last["stop"])))
    except FileNotFoundError:
        return 0
    return rows if whole else 0


class TokenFiles:
    """Writes pieces in order; the size of the pieces does not matter.

    A context manager. If its block ends with an error or an interrupt, what was added before is
    kept, and ``Kept.of`` finds it.

    Args:
        folder: created if it does not exist.
        kept: what to continue after; everything behind it is cut off.
    """

    def __init__(self, folder: Path, kept: Kept) -> None:
        self.folder = folder
        self._written = kept
        self._codes = {name: code for code, name in enumerate(kept.sources)}
        self._kept_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        kept.cut(folder)
        with ExitStack() as stack:
            self._files = {
                name: stack.enter_context((folder / name).open("ab")) for name in (ROWS, IDS, PARTS)
            }
            self._open = stack.pop_all()

    def add(self, piece: Piece) -> None:
        """Write a piece; it can be read as soon as it has been announced."""
        before = self._written
        rows = piece.moved(self._codes, before.tokens)
        columns = {ROWS: rows, IDS: piece.ids.astype("<i4", copy=False), PARTS: piece.parts}
        for name, column in columns.items():
            self._files[name].write(column.tobytes())
            self._files[name].flush()
        # In one step, so that an interrupt finds the piece either counted or not.
        self._written = Kept(
            before.rows + len(rows), before.tokens + len(piece.ids), tuple(self._codes)
        )
        if time.monotonic() - self._kept_at > KEEP_SECONDS:
            self._keep()

    def _keep(self) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())
        write_json(self.folder / KEPT, asdict(self._written))
        self._kept_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                names = json.dumps(list(self._codes))
                (self.folder / NAMES).write_text(names, encoding="utf-8")
                (self.folder / KEPT).unlink(missing_ok=True)
                return
            with suppress(OSError):  # a full disk: an error that is already raised says so
                self._keep()

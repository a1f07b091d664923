"""The files that a pool's tokens lie in, and what a stopped run has left of them."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

IDS, PARTS, ROWS, NAMES = "ids.bin", "parts.bin", "rows.bin", "sources.json"
KEPT = "kept.json"
KEEP_SECONDS = 20.0
"""Time between two notes of how much is safely there: what a kill or a power cut can cost."""

ROW = np.dtype([("stop", "<i8"), ("counted", "<i4"), ("source", "<i4"), ("cut", "?")])
"""One example: where its tokens end, how many count, which source it is of, whether it was cut."""


@dataclass(frozen=True)
class Piece:
    """The tokens of some examples, in memory.

    Attributes:
        rows: one ``ROW`` an example; its stop counts from the first token of the piece, its source
            is a place in ``sources``.
        ids: token ids of all of them, int32 ``[tokens]``.
        parts: what each token is part of, uint8 ``[tokens]``.
        sources: the names of their sources.
    """

    rows: np.ndarray
    ids: np.ndarray
    parts: np.ndarray
    sources: tuple[str, ...]

    def moved(self, codes: dict[str, int], position: int) -> np.ndarray:
        """Return the rows as of a piece that begins at a position, sources numbered by ``codes``.

        Sources that have no number yet get one.
        """
        rows = self.rows.copy()
        rows["stop"] += position
        of_piece = [codes.setdefault(name, len(codes)) for name in self.sources]
        rows["source"] = np.array(of_piece, dtype=np.int32)[self.rows["source"]]
        return rows


@dataclass(frozen=True)
class Kept:
    """How much an unfinished run left that is whole, on the disk and not in a cache alone.

    Attributes:
        rows: examples.
        tokens: of all of them.
        sources: the names that their rows refer to, in the order of the numbers.
    """

    rows: int = 0
    tokens: int = 0
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> "Kept":
        """Read what was kept in a folder: nothing, where a file is missing, shorter or damaged."""
        try:
            found = json.loads((folder / KEPT).read_bytes())
            kept = cls(int(found["rows"]), int(found["tokens"]), tuple(found["sources"]))
            sizes = {name: (folder / name).stat().st_size for name in kept.sizes}
        except (OSError, ValueError, TypeError, KeyError):
            return cls()
        return kept if all(sizes[name] >= size for name, size in kept.sizes.items()) else cls()

    def cut(self, folder: Path) -> None:
        """Cut off what lies behind, of the files that are there: nobody may be reading it."""
        for name, size in self.sizes.items():
            if (folder / name).is_file():
                os.truncate(folder / name, size)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file."""
        return {ROWS: self.rows * ROW.itemsize, IDS: self.tokens * 4, PARTS: self.tokens}


NOTHING = Kept()


def rows_written(folder: Path) -> int:
    """Return how many rows another process of this host has written whole, 0 if that is not clear.

    A piece is clear once all three files hold it, a moment after the first one does.
    """
    try:
        with (folder / ROWS).open("rb") as file:
            rows = file.seek(0, os.SEEK_END) // ROW.itemsize
            if not rows:
                return 0
            file.seek((rows - 1) * ROW.itemsize)
            (last,) = np.frombuffer(file.read(ROW.itemsize), ROW)
        wanted = Kept(rows, int(last["stop"])).sizes
        whole = all((folder / name).stat().st_size >= size for name, size in wanted.items())
    except FileNotFoundError:
        return 0
    return rows if whole else 0


class TokenFiles:
    """Writes pieces one behind another; into how many the tokens were cut does not matter.

    A context manager. Where its block ends in an error or an interrupt, what was added before is
    kept for ``Kept.of`` to find.

    Args:
        folder: made where it is not there.
        kept: what to go on behind; whatever lies behind that is cut off.
    """

    def __init__(self, folder: Path, kept: Kept) -> None:
        self.folder = folder
        self._written = kept
        self._codes = {name: code for code, name in enumerate(kept.sources)}
        self._kept_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._files = {
                name: stack.enter_context(_opened(folder / name, size))
                for name, size in kept.sizes.items()
            }
            self._open = stack.pop_all()

    def add(self, piece: Piece) -> None:
        """Write a piece; who is told of it may read it at once."""
        before = self._written
        rows = piece.moved(self._codes, before.tokens)
        columns = {ROWS: rows, IDS: piece.ids.astype("<i4", copy=False), PARTS: piece.parts}
        for name, column in columns.items():
            self._files[name].write(column.tobytes())
            self._files[name].flush()
        # In one step: an interrupt finds the piece counted, or not.
        self._written = Kept(
            before.rows + len(rows), before.tokens + len(piece.ids), tuple(self._codes)
        )
        if time.monotonic() - self._kept_at > KEEP_SECONDS:
            self._keep()

    def _keep(self) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())
        temporary = self.folder / f".{KEPT}"
        temporary.write_text(json.dumps(asdict(self._written)), encoding="utf-8")
        temporary.replace(self.folder / KEPT)
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
            with suppress(OSError):  # a full disk: the error that is on its way says so
                self._keep()


def _opened(path: Path, size: int) -> BinaryIO:
    """Open a file to write behind its first ``size`` bytes."""
    file = path.open("r+b" if size else "wb")
    file.truncate(size)
    file.seek(size)
    return file

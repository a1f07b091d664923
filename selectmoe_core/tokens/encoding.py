"""A pool's token ids and masks for one tokenizer: an artifact, so they are made only once."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from selectmoe_core.data.examples import Example
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.tokens.chat import ChatFormat, EncodedExample
from selectmoe_core.tokens.files import (
    IDS,
    NAMES,
    NOTHING,
    PARTS,
    ROW,
    ROWS,
    Kept,
    Piece,
    TokenFiles,
    sizes_of,
)
from selectmoe_core.tokens.tokenizer import Tokenizer

BATCH = 2048
BATCH_CHARACTERS = 1 << 22
"""Characters that are tokenised at once: this limits the memory if examples are long."""


@dataclass
class TokenCounts:
    """Token counts of one source with one tokenizer and chat format."""

    examples: int = 0
    tokens: int = 0
    counted_tokens: int = 0
    cut: int = 0
    """Examples that ``max_length`` truncated."""
    nothing_counts: int = 0
    """Examples in which no token counts: their mask is empty."""


@dataclass(frozen=True, eq=False)
class Joined:
    """The tokens of several examples, joined in memory.

    Attributes:
        ids: token ids, int32 ``[tokens]``.
        parts: what each token is part of, uint8 ``[tokens]``.
        starts: first token of each example and, at the end, ``tokens``: int64 ``[examples + 1]``.
    """

    ids: np.ndarray
    parts: np.ndarray
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 ``[examples]``."""
        return np.diff(self.starts)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over each example of a number for each token, int64 ``[examples]``."""
        total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.asarray(total[self.starts[1:]] - total[self.starts[:-1]])

    def places(self, rows: np.ndarray) -> slice | np.ndarray:
        """Return the positions of the tokens of some examples, example by example."""
        return token_places(self.starts[rows], self.starts[rows + 1])


@dataclass(frozen=True, eq=False)
class Encoded:
    """Memory-mapped tokens of many examples: everything that ``encode`` wrote, or some rows.

    Attributes:
        folder: the folder that ``encode`` wrote.
        chat: the chat format.
        rows: the rows of the folder that this view shows, in its order, int64 ``[examples]``;
            ``None`` means all of them.
        written: how many rows of the folder can be read while more are being written.
    """

    folder: Path
    chat: ChatFormat
    rows: np.ndarray | None = field(default=None, repr=False)
    written: int | None = None

    @classmethod
    def open(cls, folder: Path, chat: ChatFormat) -> "Encoded":
        """Open what ``encode`` wrote."""
        return cls(folder, chat)

    def holds(self, examples: int, tokens: int) -> bool:
        """Return whether the files exist and are long enough for this many examples."""
        found = {self.folder / name: size for name, size in sizes_of(examples, tokens).items()}
        return (self.folder / NAMES).is_file() and all(
            path.is_file() and path.stat().st_size == size for path, size in found.items()
        )

    def take(self, rows: Sequence[int] | np.ndarray) -> "Encoded":
        """Return a view of the given rows, in the given order, without copying tokens.

        Raises:
            IndexError: a row is not one of this view's.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"a row lies outside the {len(self)} encoded examples")
        shown = wanted if self.rows is None else self.rows[wanted]
        return Encoded(self.folder, self.chat, shown, self.written)

    def __reduce__(self) -> tuple[type["Encoded"], tuple[object, ...]]:
        """Pickle the path, not the tokens: a data loader's workers map the files themselves."""
        return Encoded, (self.folder, self.chat, self.rows, self.written)

    def __len__(self) -> int:
        return len(self._table if self.rows is None else self.rows)

    def __getitem__(self, row: int) -> EncodedExample:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} encoded examples")
        place = int(row % len(self) if self.rows is None else self.rows[row])
        start = int(self._table["stop"][place - 1]) if place else 0
        stop, cut = int(self._table["stop"][place]), bool(self._table["cut"][place])
        return EncodedExample(self._ids[start:stop], self._parts[start:stop], cut)

    def __iter__(self) -> Iterator[EncodedExample]:
        return (self[row] for row in range(len(self)))

    def joined(self, rows: np.ndarray) -> Joined:
        """Return the tokens of the given rows, int64 ``[rows]``, in the given order.

        Neighbouring rows are a view of the mapped files; other rows are copied.
        """
        places = rows if self.rows is None else self.rows[rows]
        stops = np.asarray(self._table["stop"][places])
        starts = np.where(places > 0, self._table["stop"][places - 1], 0)
        at = token_places(starts, stops)
        ends = np.concatenate([[0], np.cumsum(stops - starts)])
        return Joined(np.asarray(self._ids[at]), np.asarray(self._parts[at]), ends)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 ``[examples]``."""
        return self._shown(np.diff(self._table["stop"], prepend=np.int64(0)))

    @property
    def counted(self) -> np.ndarray:
        """Tokens of each example that count for the loss, int32 ``[examples]``."""
        return self._shown(self._table["counted"])

    @property
    def cut(self) -> np.ndarray:
        """Whether ``max_length`` truncated the example, bool ``[examples]``."""
        return self._shown(self._table["cut"])

    @property
    def tokens(self) -> int:
        """Tokens of all examples."""
        return int(self.lengths.sum())

    @cached_property
    def sources(self) -> dict[str, TokenCounts]:
        """Token counts per source of the rows shown, by name."""
        codes = self._shown(self._table["source"])
        names = json.loads((self.folder / NAMES).read_text(encoding="utf-8"))

        def sums(values: np.ndarray) -> np.ndarray:
            """Exact: a double holds every integer up to 2**53."""
            return np.bincount(codes, weights=values, minlength=len(names)).astype(np.int64)

        columns = (self.lengths, self.counted, self.cut, self.counted == 0)
        table = [np.bincount(codes, minlength=len(names)), *map(sums, columns)]
        counts = {
            name: TokenCounts(*map(int, row)) for name, *row in zip(names, *table, strict=True)
        }
        return {name: count for name, count in sorted(counts.items()) if count.examples}

    @cached_property
    def _table(self) -> np.ndarray:
        return _mapped(self.folder / ROWS, ROW, self.written)

    @cached_property
    def _ids(self) -> np.ndarray:
        return _mapped(self.folder / IDS, np.dtype("<i4"), self._tokens_written)

    @cached_property
    def _parts(self) -> np.ndarray:
        return _mapped(self.folder / PARTS, np.dtype("u1"), self._tokens_written)

    @property
    def _tokens_written(self) -> int | None:
        return None if self.written is None else int(self._table["stop"][-1:].sum())

    def _shown(self, column: np.ndarray) -> np.ndarray:
        return np.asarray(column if self.rows is None else column[self.rows])


def encode(
    examples: Iterable[Example],
    folder: Path,
    chat: ChatFormat,
    tokenizer: Tokenizer,
    advance: Advance = lambda _: None,
    kept: Kept = NOTHING,
) -> Encoded:
    """Tokenise examples into ``folder``, in bounded memory; ``examples`` start after ``kept``."""
    pieces = (_piece(batch, chat, tokenizer) for batch in _batches(examples))
    return write_pieces(pieces, folder, chat, advance, kept)


def piece_of(examples: Iterable[Example], chat: ChatFormat, tokenizer: Tokenizer) -> Piece:
    """Tokenise one or more examples into memory."""
    pieces = [_piece(batch, chat, tokenizer) for batch in _batches(examples)]
    codes: dict[str, int] = {}
    ends = np.cumsum([0, *(len(piece.ids) for piece in pieces)])
    return Piece(
        np.concatenate(
            [piece.moved(codes, end) for piece, end in zip(pieces, ends.tolist(), strict=False)]
        ),
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate([piece.parts for piece in pieces]),
        tuple(codes),
    )


def write_pieces(
    pieces: Iterable[Piece],
    folder: Path,
    chat: ChatFormat,
    advance: Advance = lambda _: None,
    kept: Kept = NOTHING,
) -> Encoded:
    """Append pieces to what is kept in ``folder``."""
    with TokenFiles(folder, kept) as files:
        for piece in pieces:
            files.add(piece)
            advance(len(piece.rows))
    return Encoded.open(folder, chat)


def _piece(batch: Sequence[Example], chat: ChatFormat, tokenizer: Tokenizer) -> Piece:
    encoded = chat.encode(batch, tokenizer)
    codes: dict[str, int] = {}
    ids = np.concatenate([example.ids for example in encoded])
    parts = np.concatenate([example.parts for example in encoded])
    starts = np.cumsum([0, *(len(example.ids) for example in encoded)], dtype=np.int64)
    rows = np.empty(len(batch), dtype=ROW)
    rows["stop"] = starts[1:]
    rows["counted"] = Joined(ids, parts, starts).sums(chat.counts(parts))
    rows["source"] = [codes.setdefault(example.source, len(codes)) for example in batch]
    rows["cut"] = [example.cut for example in encoded]
    return Piece(rows, ids, parts, tuple(codes))


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    characters = 0
    for example in examples:
        batch.append(example)
        characters += sum(len(message.content) for message in example.messages)
        if len(batch) >= BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def token_places(starts: np.ndarray, stops: np.ndarray) -> slice | np.ndarray:
    """Return the positions from each start to its stop, in order: a slice if there is no gap."""
    if not len(starts):
        return slice(0, 0)
    if np.array_equal(starts[1:], stops[:-1]):
        return slice(int(starts[0]), int(stops[-1]))
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths))


def _mapped(path: Path, kind: np.dtype, items: int | None = None) -> np.ndarray:
    if not (path.stat().st_size if items is None else items):
        return np.empty(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r", shape=items)

"""The pool: every example once, in memory-mapped Arrow, for any number of examples."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from selectmoe_core.data.examples import ID_BYTES, Example, Message, Reject
from selectmoe_core.errors import StageError

POOL = "pool.arrow"
BATCHES = "batches.npy"
REJECTS = "rejects.jsonl"
COUNTS = "pool.json"
AGAIN = "rerun the stage with --fresh pool"
TAKEN = 256
"""Number of rows that ``take`` holds at once."""

FORMAT = 2
"""The version of a pool's files; a new number makes every pool, and what reads one, again. Since 2,
messages say whether they are trained on."""
REASONS = 5
"""Number of the most frequent reasons for rejected rows that a pool stores."""

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("trained", pa.bool_())])
META = pa.struct([("original_id", pa.string()), ("where", pa.string()), ("label", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.binary(ID_BYTES)),
        ("source", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("meta", META),
    ]
)


@dataclass
class SourceCounts:
    """Counts of the rows of one source."""

    examples: int = 0
    rejected: int = 0
    duplicates: int = 0
    turns: int = 0
    prompt_characters: int = 0
    response_characters: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for rejected rows, how many there are, and where the first one is."""

    text: str
    rows: int
    first: str

    def __str__(self) -> str:
        count = f"{self.rows:,} row{'s' if self.rows > 1 else ''}"
        return f"{count}, the first at {self.first}: {self.text}"


@dataclass(frozen=True)
class Pool:
    """An open pool. Rows are read from the memory-mapped file on demand.

    Attributes:
        folder: the folder that ``build_pool`` wrote.
        sources: counts per source name.
        reasons: the most frequent reasons for rejected rows.
    """

    folder: Path
    sources: dict[str, SourceCounts] = field(repr=False)
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> "Pool":
        """Open the pool in ``folder``.

        Raises:
            StageError: a file of it is missing or damaged.
        """
        with _whole(folder / COUNTS) as path:
            counts = json.loads(path.read_bytes())
            if counts["format"] != FORMAT:
                raise ValueError(f"its format is {counts['format']}, not {FORMAT}")
            sources = {name: SourceCounts(**numbers) for name, numbers in counts["sources"].items()}
            pool = cls(folder, sources, tuple(Reason(**reason) for reason in counts["reasons"]))
        if pool._reader.num_record_batches != len(pool._starts) - 1:
            raise StageError(f"{folder / POOL} is incomplete", hint=AGAIN)
        return pool

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _reader(self) -> pa.RecordBatchFileReader:
        with _whole(self.folder / POOL) as path:
            return pa.ipc.open_file(pa.memory_map(str(path)))

    @cached_property
    def _starts(self) -> np.ndarray:
        with _whole(self.folder / BATCHES) as path:
            return np.asarray(np.load(path))

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows from ``start`` up to ``stop`` in file order, batch by batch."""
        stop = len(self) if stop is None else min(stop, len(self))
        if start >= stop:
            return
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for number in range(first, len(self._starts) - 1):
            begin = int(self._starts[number])
            if begin >= stop:
                return
            batch = self._reader.get_batch(number)
            low, high = max(start - begin, 0), min(stop - begin, batch.num_rows)
            yield batch.slice(low, high - low)

    def examples(self, start: int = 0, stop: int | None = None) -> Iterator[Example]:
        """Yield the examples from row ``start`` up to ``stop``."""
        for batch in self.batches(start, stop):
            yield from examples_of(batch)

    def take(self, rows: Sequence[int] | np.ndarray) -> Iterator[Example]:
        """Yield the examples of the given rows, in the given order.

        Raises:
            IndexError: a row is not one of the pool's.
        """
        wanted = self._checked(rows)
        for start in range(0, len(wanted), TAKEN):
            for batch in self.table(wanted[start : start + TAKEN]).to_batches():
                yield from examples_of(batch)

    def table(self, rows: Sequence[int] | np.ndarray) -> pa.Table:
        """Return the given rows, in the given order, with all columns; they are all in memory.

        Raises:
            IndexError: a row is not one of the pool's.
        """
        wanted = self._checked(rows)
        if not len(wanted):
            return SCHEMA.empty_table()
        numbers = np.searchsorted(self._starts, wanted, side="right") - 1
        places = wanted - self._starts[numbers]
        batches = {number: self._reader.get_batch(number) for number in set(numbers.tolist())}
        # Joins slices, because Arrow's own take is four times slower on lists of messages.
        parts = [
            batches[number].slice(place, 1)
            for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
        ]
        return pa.Table.from_batches(parts, SCHEMA).combine_chunks()

    def _checked(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"a row lies outside the pool of {len(self)} examples")
        return wanted

    def meta(self, row: int) -> dict[str, str]:
        """Return the reader's notes on a row: for reports, never for scorers."""
        return next(iter(self.batches(row, row + 1))).column("meta")[0].as_py()  # type: ignore[no-any-return]

    def ids(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the ids as two big-endian uint64 columns, ``[rows, 2]``."""
        parts = [_id_words(batch.column("id")) for batch in self.batches(start, stop)]
        return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.uint64)

    def source_names(self, start: int = 0, stop: int | None = None) -> pa.DictionaryArray:
        """Return the source of each row, dictionary-encoded."""
        chunks = [batch.column("source") for batch in self.batches(start, stop)]
        return pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()

    def rejects(self) -> Iterator[Reject]:
        """Yield the rows that could not be used."""
        path = self.folder / REJECTS
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    yield Reject(**json.loads(line))

    def sample(self, ratio: float, seed: int) -> np.ndarray:
        """Return sorted rows: the share ``ratio`` of the pool, at least one.

        A row is drawn by the hash of its id and the seed, so the same examples are drawn in any
        order of rows and files.
        """
        count = min(len(self), max(1, round(ratio * len(self))))
        return draw(self.ids(), count, seed)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Turn an error of a missing or damaged file into one that a user can act on."""
    try:
        yield path
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(f"{path} is missing or damaged: {error}", hint=AGAIN) from None


def draw(ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return ``count`` sorted rows drawn by the hash of their id and the seed."""
    keys = hash_ids(ids, seed)
    if count >= len(keys):
        return np.arange(len(keys))
    return np.sort(np.argpartition(keys, count - 1)[:count])


def hash_ids(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return a uniform uint64 for each id under a seed: SplitMix64's finaliser over both words."""
    with np.errstate(over="ignore"):
        mixed = ids[:, 0] ^ _mix(ids[:, 1] + _mix(np.full(1, seed % (1 << 64), dtype=np.uint64)))
        return _mix(mixed)


def _mix(words: np.ndarray) -> np.ndarray:
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def examples_of(batch: pa.RecordBatch) -> Iterator[Example]:
    """Yield the examples of a batch."""
    columns = (batch.column(name).to_pylist() for name in ("id", "source", "messages"))
    for identity, source, messages in zip(*columns, strict=True):
        turns = tuple([Message(t["role"], t["content"], t["trained"]) for t in messages])
        yield Example(identity.hex(), source, turns)


def _id_words(column: pa.Array) -> np.ndarray:
    start = column.offset * ID_BYTES
    data = np.frombuffer(column.buffers()[1], dtype=np.uint8)[
        start : start + len(column) * ID_BYTES
    ]
    return data.view(">u8").astype(np.uint64).reshape(-1, 2)

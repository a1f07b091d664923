"""Building the pool: rows are checked, hashed and written; exact duplicates are dropped."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selectmoe_core.data.examples import (
    ID_BYTES,
    RawExample,
    Reject,
    content_id,
    conversation_problem,
)
from selectmoe_core.data.pool import (
    BATCHES,
    COUNTS,
    FORMAT,
    MESSAGE,
    META,
    POOL,
    REASONS,
    REJECTS,
    SCHEMA,
    Pool,
    Reason,
    SourceCounts,
)
from selectmoe_core.errors import DataError, SelectMoEError, utf8_text
from selectmoe_core.store import replacing

IDS = "ids.bin"
BATCH_ROWS = 1024
BATCH_CHARACTERS = 1 << 26
DEDUPLICATE_ROWS = 1 << 22
"""Rows whose ids are sorted at once; this limits the memory of the search for duplicates."""
LONGEST_NAME = 200
"""The longest source name, in characters; it appears in tables and reports."""
LOOK_AHEAD = 100
"""Number of later rows that are checked after a bad one, to give useful advice."""
DISTINCT_REASONS = 1000
"""Number of different reasons for rejected rows that are counted separately."""


def build_pool(
    rows: Iterable[RawExample | Reject],
    folder: Path,
    *,
    on_reject: Literal["stop", "skip"] = "stop",
    advance: Callable[[float], None] = lambda _: None,
    table: str = "[pool]",
    keep_duplicates: bool = False,
) -> Pool:
    """Write the pool into ``folder``: checked, hashed, without exact duplicates of earlier rows.

    Args:
        rows: what a reader yields.
        folder: where the pool goes.
        on_reject: stop at the first row that cannot be used, or count it and leave it out.
        advance: called with numbers of rows.
        table: the table of the recipe, for messages.
        keep_duplicates: keep duplicates of earlier rows.

    Raises:
        DataError: at the first row that cannot be used if ``on_reject`` is ``"stop"``, and if no
            example is left.
    """
    looked_at = map(checked, rows)
    with _Writer(folder, advance) as writer:
        for row in looked_at:
            if isinstance(row, RawExample):
                writer.add(row)
            elif on_reject == "stop":
                hint = _advice(writer.begun, looked_at, table)
                raise DataError(f"{row.where}: {row.reason}", hint=hint)
            else:
                writer.reject(row)
    counts, reasons = writer.counts, writer.reasons.commonest()
    if not writer.rows:
        what = "the pool" if table == "[pool]" else table
        raise DataError(f"{what} is empty: no example could be read", hint=_why_empty(reasons))
    if not keep_duplicates and len(duplicates := _duplicates(folder / IDS, writer.rows)):
        _drop(folder, duplicates, counts)
    (folder / IDS).unlink()
    content = {
        "format": FORMAT,
        "reasons": [{"text": r.text, "rows": r.rows, "first": r.first} for r in reasons],
        "sources": {name: vars(numbers) for name, numbers in sorted(counts.items())},
    }
    (folder / COUNTS).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return Pool.open(folder)


class _Reasons:
    """Counts the reasons for rejected rows; reasons that differ only in numbers count as one."""

    def __init__(self) -> None:
        self._first: dict[str, Reject] = {}
        self._rows: dict[str, int] = {}

    def add(self, row: Reject) -> None:
        kind = re.sub("[0-9]+", "0", row.reason)
        if kind not in self._first and len(self._first) >= DISTINCT_REASONS:
            kind, row = "", Reject(row.source, row.where, "other reasons")
        self._first.setdefault(kind, row)
        self._rows[kind] = self._rows.get(kind, 0) + 1

    def commonest(self) -> list[Reason]:
        kinds = sorted(self._rows, key=lambda kind: -self._rows[kind])[:REASONS]
        first = self._first
        return [Reason(first[k].reason, self._rows[k], first[k].where) for k in kinds]


class _Writer:
    """Appends checked rows to the Arrow file, batch by batch."""

    def __init__(self, folder: Path, advance: Callable[[float], None]) -> None:
        self.folder = folder
        self.advance = advance
        self.rows = 0
        self.counts: dict[str, SourceCounts] = {}
        self.reasons = _Reasons()
        self._batch: list[tuple[bytes, RawExample]] = []
        self._characters = 0

    def __enter__(self) -> "_Writer":
        with ExitStack() as stack:
            self._ids = stack.enter_context((self.folder / IDS).open("wb"))
            self._rejects = stack.enter_context((self.folder / REJECTS).open("w", encoding="utf-8"))
            self._arrow = stack.enter_context(_arrow_file(self.folder))
            self._files = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._files.__exit__(kind, error, trace)
            return
        with self._files:
            self._flush()

    @property
    def begun(self) -> bool:
        """Whether any row could be used."""
        return bool(self.rows or self._batch)

    def add(self, row: RawExample) -> None:
        self._batch.append((content_id(row.messages), row))
        for message in row.messages:
            self._characters += len(message.content)
        if len(self._batch) >= BATCH_ROWS or self._characters >= BATCH_CHARACTERS:
            self._flush()

    def reject(self, row: Reject) -> None:
        line = {"source": row.source, "where": row.where, "reason": row.reason}
        self._rejects.write(json.dumps(line) + "\n")
        self.counts.setdefault(row.source, SourceCounts()).rejected += 1
        self.reasons.add(row)
        self.advance(1)

    def _flush(self) -> None:
        if self._batch:
            batch = _record_batch(self._batch)
            self._ids.write(b"".join(identity for identity, _ in self._batch))
            self._arrow.write(batch)
            _count(batch, self.counts, 1)
            self.rows += len(self._batch)
            self.advance(len(self._batch))
        self._batch, self._characters = [], 0


class _ArrowFile:
    """The pool's Arrow file and the positions of its batches."""

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter) -> None:
        self._writer = writer
        self.starts = [0]

    def write(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._writer.write_batch(batch)
            self.starts.append(self.starts[-1] + batch.num_rows)


@contextmanager
def _arrow_file(folder: Path) -> Iterator[_ArrowFile]:
    """Write the pool's Arrow file and the table with the positions of its batches."""
    with replacing(folder / POOL, alone=True) as temporary:
        with pa.ipc.new_file(str(temporary), SCHEMA) as writer:
            file = _ArrowFile(writer)
            yield file
        np.save(folder / BATCHES, np.asarray(file.starts, dtype=np.int64))


def _record_batch(batch: list[tuple[bytes, RawExample]]) -> pa.RecordBatch:
    messages = [message for _, row in batch for message in row.messages]
    offsets = np.cumsum([0, *(len(row.messages) for _, row in batch)], dtype=np.int32)
    values = pa.StructArray.from_arrays(
        [
            pa.array([message.role for message in messages], pa.string()),
            pa.array([message.content for message in messages], pa.string()),
            pa.array([message.trained for message in messages], pa.bool_()),
        ],
        fields=list(MESSAGE),
    )
    meta = pa.StructArray.from_arrays(
        [
            pa.array([row.original_id for _, row in batch], pa.string()),
            pa.array([row.where for _, row in batch], pa.string()),
            pa.array([row.label for _, row in batch], pa.string()),
        ],
        fields=list(META),
    )
    columns = [
        pa.array([identity for identity, _ in batch], pa.binary(ID_BYTES)),
        pa.array([row.source for _, row in batch], pa.string()),
        pa.ListArray.from_arrays(pa.array(offsets), values),
        meta,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def checked(row: RawExample | Reject) -> RawExample | Reject:
    """Return the row, or the reason why it cannot be used, in text that UTF-8 can encode."""
    if isinstance(row, Reject):
        reject = row
    elif problem := conversation_problem(row.messages) or _text_problem(row):
        reject = Reject(row.source, row.where, problem)
    else:
        return row
    source = utf8_text(reject.source[:LONGEST_NAME])
    return Reject(source, utf8_text(reject.where), utf8_text(reject.reason))


def _text_problem(row: RawExample) -> str | None:
    try:
        for message in row.messages:
            if not message.content.isascii():
                message.content.encode()
        for note in (row.source, row.where, row.original_id, row.label):
            if not note.isascii():
                note.encode()
    except UnicodeEncodeError:
        return "its text has half of a surrogate pair, which is not valid Unicode"
    if len(row.source) > LONGEST_NAME:
        return f"its source name has {len(row.source):,} characters, more than {LONGEST_NAME}"
    return None


def _duplicates(ids: Path, rows: int) -> np.ndarray:
    """Return the sorted rows whose id an earlier row has, in bounded memory."""
    words = np.memmap(ids, dtype=">u8", mode="r", shape=(rows, 2))
    passes = -(-rows // DEDUPLICATE_ROWS)
    found = []
    for number in range(passes):
        picked = [np.empty(0, dtype=np.int64)]
        for start in range(0, rows, DEDUPLICATE_ROWS):
            chunk = words[start : start + DEDUPLICATE_ROWS, 0].astype(np.uint64)
            picked.append(start + np.flatnonzero(chunk % np.uint64(passes) == number))
        of_pass = np.concatenate(picked)
        high, low = (words[of_pass, column].astype(np.uint64) for column in (0, 1))
        order = np.lexsort((of_pass, low, high))
        same = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
        found.append(of_pass[order[1:][same]])
    return np.sort(np.concatenate(found))


def _drop(folder: Path, duplicates: np.ndarray, counts: dict[str, SourceCounts]) -> None:
    """Rewrite the file without the given rows."""
    old = folder / "with-duplicates.arrow"
    (folder / POOL).replace(old)
    start = 0
    with pa.memory_map(str(old)) as source, _arrow_file(folder) as target:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            low, high = np.searchsorted(duplicates, [start, start + batch.num_rows])
            if low < high:
                keep = np.ones(batch.num_rows, dtype=bool)
                keep[duplicates[low:high] - start] = False
                _count(batch.filter(pa.array(~keep)), counts, -1)
                batch = batch.filter(pa.array(keep))
            target.write(batch)
            start += len(keep) if low < high else batch.num_rows
    old.unlink()


def _count(batch: pa.RecordBatch, counts: dict[str, SourceCounts], sign: Literal[1, -1]) -> None:
    """Add a batch to the counts of its sources, or subtract it as duplicates."""
    source = batch.column("source").dictionary_encode()
    codes = source.indices.to_numpy()
    turns = pc.list_value_length(batch.column("messages")).to_numpy()
    messages = batch.column("messages").flatten()
    lengths = pc.utf8_length(messages.field("content")).to_numpy()
    answer = np.asarray(pc.equal(messages.field("role"), "assistant"))
    of_turn = np.repeat(codes, turns)
    for code, name in enumerate(source.dictionary.to_pylist()):
        numbers = counts.setdefault(name, SourceCounts())
        mine = of_turn == code
        examples = int(np.count_nonzero(codes == code))
        numbers.examples += sign * examples
        numbers.duplicates += examples if sign < 0 else 0
        numbers.turns += sign * int(np.count_nonzero(mine))
        numbers.response_characters += sign * int(lengths[mine & answer].sum())
        numbers.prompt_characters += sign * int(lengths[mine & ~answer].sum())


def _advice(begun: bool, following: Iterable[RawExample | Reject], table: str) -> str:
    """Return a hint for a row that stops the pool; never one that would leave no rows."""
    seen = usable = 0
    last = ""
    try:
        for row in islice(following, LOOK_AHEAD):
            if isinstance(row, RawExample) and row.label == "rejected" and row.where == last:
                continue  # the second half of a pair
            last = row.where
            seen += 1
            usable += isinstance(row, RawExample)
    except SelectMoEError:
        pass  # a later error of the reader has nothing to do with this row
    if not begun and not usable:
        others = f"none of the next {seen} rows can be used either: " if seen else ""
        return f"{others}fix the row, or check the reader and its options 'format' and 'columns'"
    bad = seen - usable
    more = f"; {bad} of the next {seen} rows cannot be used either" if bad else ""
    return f'fix the row, or set {table} on_reject = "skip" to leave out such rows{more}'


def _why_empty(reasons: list[Reason]) -> str:
    if not reasons:
        return "check the reader's path and sources"
    return f"every row was rejected: {'; '.join(map(str, reasons))}"

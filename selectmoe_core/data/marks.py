"""What filters say of the pool's rows, and the scores of the rows that stay."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.errors import StageError
from selectmoe_core.store import replacing

FORMAT = 1
"""Of the file of marks; another number makes every filter's, and the selections, again."""
MARKS = "marks.parquet"
SCHEMA = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("group", pa.int64())])
COLUMNS = "columns.parquet"
NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = frozenset(
    {"row", "id", "source", "rank", "score", "group", "cluster", "reason", "filter"}
)
"""Columns that ``selection.parquet`` and ``left_out.parquet`` have in any case."""
NO_GROUP = -1
ONE_IS_BETTER = "another row of its group is kept"
"""The reason of a row that was left out for the sake of a better one of its group."""


@dataclass(frozen=True)
class Marks:
    """What a filter says of some rows; the others it does not object to.

    Attributes:
        rows: positions in the pool, int64 ``[marks]``, each once.
        reasons: why each row is left out, ``None`` for a row that has a group; few different texts,
            for many rows best an Arrow dictionary.
        groups: int64 ``[marks]``, or ``None`` where no row has one: of the rows of one number the
            best-scored alone is kept. -1 for a row with a reason.
        columns: what the filter knows of every row of the pool, by the name of a column that
            ``selection.parquet`` gets, such as ``language``: Arrow text ``[pool]``, best a
            dictionary. It changes no selection; the stage counts its values by source.
    """

    rows: np.ndarray
    reasons: Sequence[str | None] | pa.Array
    groups: np.ndarray | None = None
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

    @classmethod
    def left_out(
        cls,
        rows: np.ndarray,
        reasons: Sequence[str] | pa.Array,
        columns: Mapping[str, pa.Array] | None = None,
    ) -> "Marks":
        """Mark rows to leave out, with a reason for each."""
        return cls(np.asarray(rows, dtype=np.int64), reasons, columns=columns or {})

    @classmethod
    def grouped(cls, rows: np.ndarray, groups: np.ndarray) -> "Marks":
        """Mark rows of which the best-scored of each group alone is kept."""
        whole = np.asarray(rows, dtype=np.int64)
        return cls(whole, pa.nulls(len(whole), pa.string()), np.asarray(groups, dtype=np.int64))

    @property
    def numbers(self) -> np.ndarray:
        """The group of each mark, int64 ``[marks]``, -1 where it has none."""
        if self.groups is None:
            return np.full(len(self.rows), NO_GROUP, dtype=np.int64)
        return np.asarray(self.groups, dtype=np.int64)

    def texts(self) -> pa.Array:
        """Return the reasons as Arrow text, null where a row has a group."""
        if isinstance(self.reasons, pa.Array):
            return self.reasons.cast(pa.string())
        return pa.array(list(self.reasons), pa.string())

    def problem(self, rows: int) -> str | None:
        """Return what is wrong with marks on a pool of so many rows, or ``None``."""
        marked = np.asarray(self.rows)
        if marked.ndim != 1 or not np.issubdtype(marked.dtype, np.integer):
            return f"'rows' must be integers in one dimension, got {marked.dtype} {marked.shape}"
        for name, size in (("reasons", len(self.reasons)), ("groups", len(self.numbers))):
            if size != len(marked):
                return f"'{name}' has {size} entries for {len(marked)} rows"
        if len(marked) and not 0 <= marked.min() <= marked.max() < rows:
            return "a row lies outside the pool"
        if len(np.unique(marked)) != len(marked):
            return "a row is marked twice"
        reasoned = np.asarray(self.texts().is_valid().to_numpy(zero_copy_only=False))
        if (reasoned == (self.numbers >= 0)).any():
            return "each marked row needs either a reason or a group"
        return self._column_problem(rows)

    def _column_problem(self, rows: int) -> str | None:
        for name, values in self.columns.items():
            if not NAME.fullmatch(name) or name in RESERVED:
                return f"a column cannot be named {name!r}"
            if len(values) != rows:
                return f"the column '{name}' has {len(values)} entries for a pool of {rows} rows"
        return None


def write_marks(folder: Path, marks: Marks) -> None:
    """Write marks by rename, in the order of the rows."""
    order = np.argsort(marks.rows, kind="stable")
    numbers = marks.numbers[order]
    columns = [
        pa.array(np.asarray(marks.rows, dtype=np.int64)[order]),
        marks.texts().take(pa.array(order)),
        pa.array(numbers, mask=numbers < 0),
    ]
    with replacing(folder / MARKS, alone=True) as temporary:
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary, use_dictionary=["reason"])
    if marks.columns:
        with replacing(folder / COLUMNS, alone=True) as temporary:
            pq.write_table(pa.table(dict(marks.columns)), temporary)


def read_marks(folder: Path) -> Marks:
    """Read the marks of a finished filter.

    Raises:
        StageError: the file is missing or damaged.
    """
    path = folder / MARKS
    try:
        table = pq.read_table(path).combine_chunks()
    except (OSError, pa.ArrowInvalid) as error:
        raise StageError(
            f"{path} is missing or damaged: {error}",
            hint="run the filters again with --fresh filter",
        ) from None
    rows, reasons, groups = (_whole(table.column(name)) for name in SCHEMA.names)
    columns = _read_columns(folder / COLUMNS)
    return Marks(rows.to_numpy(), reasons, groups.fill_null(NO_GROUP).to_numpy(), columns)


def _read_columns(path: Path) -> dict[str, pa.Array]:
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    return {name: _whole(table.column(name)) for name in table.column_names}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


@dataclass(frozen=True)
class LeftOut:
    """The rows that filters leave out of a selection.

    Attributes:
        codes: for each row of the pool, int32: 0 where it stays, else one more than the place of
            its reason.
        reasons: the name of a filter and its reason, in the order of the filters.
        groups: for each row, int64: the group of the filter that left it out or grouped it, -1
            where there is none.
        sizes: how many rows of the pool stood in the group of a row that stays, int64; 1 where it
            has none.
        columns: what filters know of each row, by the name of a column: Arrow text ``[rows]``.
    """

    codes: np.ndarray
    reasons: tuple[tuple[str, str], ...]
    groups: np.ndarray
    sizes: np.ndarray
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

    @property
    def rows(self) -> np.ndarray:
        """The positions of the rows that are left out, sorted."""
        return np.flatnonzero(self.codes)

    def reason(self, row: int) -> tuple[str, str] | None:
        """Return the filter that leaves a row out and its reason, or ``None`` where it stays."""
        code = int(self.codes[row])
        return self.reasons[code - 1] if code else None

    def counts(self, codes: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return how many rows are left out, by source and ``filter: reason``.

        Args:
            codes: the source of each row as a position in ``names``.
            names: the sources.
        """
        width = len(self.reasons) + 1
        table = np.bincount(
            codes.astype(np.int64) * width + self.codes, minlength=len(names) * width
        ).reshape(len(names), width)
        return {
            name: {
                f"{owner}: {reason}": int(table[code, place])
                for place, (owner, reason) in enumerate(self.reasons, start=1)
                if table[code, place]
            }
            for code, name in enumerate(names)
            if table[code, 1:].any()
        }


def apply_marks(table: ScoreTable, filters: Mapping[str, Marks]) -> LeftOut:
    """Return which rows are left out: those with a reason, then all but the best of each group.

    The first filter that objects to a row gives the reason. Groups are looked at filter by filter,
    and only among the rows that are still in and have a score; of equal scores the smaller id
    stays.

    Args:
        table: the scores.
        filters: marks by the name of their filter, in the order in which they are looked at.
    """
    rows = len(table)
    codes = np.zeros(rows, dtype=np.int32)
    groups = np.full(rows, NO_GROUP, dtype=np.int64)
    sizes = np.ones(rows, dtype=np.int64)
    reasons: list[tuple[str, str]] = []
    for name, marks in filters.items():
        for reason, marked in _by_reason(marks):
            reasons.append((name, reason))
            codes[marked[codes[marked] == 0]] = len(reasons)
    score: np.ndarray | None = None
    for name, marks in filters.items():
        numbers = marks.numbers
        if (numbers >= 0).any():
            score = table.score() if score is None else score
            reasons.append((name, ONE_IS_BETTER))
            _keep_best(table, score, marks.rows, numbers, (codes, groups, sizes), len(reasons))
    return LeftOut(codes, tuple(reasons), groups, sizes, _columns(filters))


def _columns(filters: Mapping[str, Marks]) -> dict[str, pa.Array]:
    """Return the columns of all filters; a name that two have is followed by the filter's."""
    found: dict[str, pa.Array] = {}
    for owner, marks in filters.items():
        for name, values in marks.columns.items():
            found[f"{name}:{owner}" if name in found else name] = values
    return found


def _by_reason(marks: Marks) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each reason, in the order of the alphabet, with the rows that have it."""
    column = marks.texts().dictionary_encode()
    texts = column.dictionary.to_pylist()
    codes = column.indices.fill_null(-1).to_numpy()
    for place in sorted(range(len(texts)), key=lambda place: texts[place]):
        yield texts[place], marks.rows[codes == place]


def _keep_best(
    table: ScoreTable,
    score: np.ndarray,
    rows: np.ndarray,
    numbers: np.ndarray,
    out: tuple[np.ndarray, np.ndarray, np.ndarray],
    code: int,
) -> None:
    """Leave out all but the best row of each group; write into codes, groups and sizes."""
    codes, groups, sizes = out
    there = (numbers >= 0) & (codes[rows] == 0) & np.isfinite(score[rows])
    rows, numbers = rows[there], numbers[there]
    order = np.argsort(rows, kind="stable")
    rows, numbers = rows[order], numbers[order]
    ids = table.ids(rows)
    order = np.lexsort((ids[:, 1], ids[:, 0], -score[rows], numbers))
    rows, numbers = rows[order], numbers[order]
    first = np.append(True, numbers[1:] != numbers[:-1])[: len(rows)]
    codes[rows[~first]] = code
    groups[rows] = numbers
    starts = np.flatnonzero(first)
    sizes[rows[first]] = np.diff(np.append(starts, len(rows)))


@dataclass(frozen=True)
class FilteredTable(ScoreTable):
    """A score table in which the rows that filters leave out have no score.

    Attributes:
        left_out: positions of these rows.
    """

    left_out: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def score(self) -> np.ndarray:
        """Return the scores, float64 ``[rows]``; NaN for a row that is skipped or left out."""
        score = super().score()
        score[self.left_out] = np.nan
        return score

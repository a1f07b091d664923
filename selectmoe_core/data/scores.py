"""Scores: Parquet files, one per shard, and a table that reads them column by column."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.errors import StageError
from selectmoe_core.runtime.prefetch import ahead
from selectmoe_core.store import replacing

FORMAT = 1
"""The version of score tables; a new number makes all of them again."""
SCORES = "scores"
FEATURES = "features"
KERNEL = "kernel"
ONE_EACH = "fix the scorer: it must return one number for each example of the shard, in order"
OWN_COLUMNS = ("id", "source", "score", "skipped")


@dataclass(frozen=True)
class ShardScores:
    """What a scorer returns for one shard, in the shard's order.

    Attributes:
        score: float ``[examples]``, higher is better; NaN exactly where ``skipped`` has a reason.
        skipped: a reason for each example that gets no score, else ``None``; by default for none.
        details: further numbers for other components, ``[examples]`` or ``[examples, width]`` each.
        features: ``[examples, width]``, stored as float16.
        kernel: the implementation that computed them, if that matters; a table has one kernel.
    """

    score: np.ndarray
    skipped: Sequence[str | None] | None = None
    details: Mapping[str, np.ndarray] = field(default_factory=dict)
    features: np.ndarray | None = None
    kernel: str | None = None


@dataclass(frozen=True)
class Finish:
    """What a scorer returns after every shard is written.

    Attributes:
        score: the final scores, float ``[rows]``, NaN where a row was skipped; ``None`` leaves them
            as they are. They must follow from the details alone: a resumed stage asks again, and
            finds scores that may be final already.
        warnings: sentences for the user.
        skipped: a reason for each row that gets no score after all, else ``None``, ``[rows]``;
            only together with ``score``, and it too must follow from the details alone.
    """

    score: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    skipped: Sequence[str | None] | None = None


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a shard's scores."""
    return folder / SCORES / f"part-{number:05d}.parquet"


def features_path(folder: Path, number: int) -> Path:
    """Return the file of a shard's features."""
    return folder / FEATURES / f"part-{number:05d}.npy"


def check_scores(scores: ShardScores, examples: int) -> None:
    """Raise a ``StageError`` unless every example has a finite score or a reason for having none.

    Details and features must have a row for each example, and features must fit float16.
    """
    values = np.asarray(scores.score, dtype=np.float64)
    if values.shape != (examples,):
        raise StageError(
            f"the scorer returned scores of shape {values.shape} for {examples} examples",
            hint=ONE_EACH,
        )
    if scores.skipped is not None and len(scores.skipped) != examples:
        raise StageError(
            f"the scorer returned {len(scores.skipped)} reasons for {examples} examples",
            hint=ONE_EACH,
        )
    skipped = _is_skipped(scores, examples)
    bad = ~np.isfinite(values) & ~skipped
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise StageError(
            f"{int(bad.sum())} of {examples} examples got no finite score and no reason, "
            f"the first of them {values[row]}",
            hint="a scorer must return a finite number or a reason to skip. Are the weights "
            "finite? (selectmoe verify CONVERTED ORIGINAL)",
        )
    for name, detail in scores.details.items():
        _check_detail(name, np.shape(detail), examples)
    if scores.features is not None:
        _check_features(np.asarray(scores.features), skipped)


def _check_detail(name: str, shape: tuple[int, ...], examples: int) -> None:
    if name in OWN_COLUMNS:
        raise StageError(
            f"the scorer returned a detail '{name}', but the core uses that column name"
        )
    if len(shape) not in (1, 2) or shape[0] != examples or 0 in shape[1:]:
        raise StageError(
            f"the scorer returned the detail '{name}' of shape {shape} for {examples} examples",
            hint="a detail must have the shape [examples] or [examples, width]",
        )


def _check_features(features: np.ndarray, skipped: np.ndarray) -> None:
    if features.ndim != 2 or len(features) != len(skipped):
        raise StageError(
            f"the scorer returned features of shape {features.shape} for {len(skipped)} examples",
            hint="features must have the shape [examples, width]",
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(features.astype(np.float16)).all(axis=1)
    if bad := int((~(finite | skipped)).sum()):
        raise StageError(
            f"the features of {bad} examples are not finite in float16",
            hint="scale the features so that none exceeds 65504",
        )


def _is_skipped(scores: ShardScores, examples: int) -> np.ndarray:
    reasons = [None] * examples if scores.skipped is None else scores.skipped
    return np.array([bool(reason) for reason in reasons], dtype=bool)


def write_part(
    folder: Path, number: int, ids: pa.Array, sources: pa.Array, scores: ShardScores
) -> None:
    """Write one shard by rename, so that an existing file is always complete."""
    examples = len(ids)
    check_scores(scores, examples)
    skipped = _is_skipped(scores, examples)
    values = np.where(skipped, np.nan, np.asarray(scores.score, dtype=np.float64))
    reasons = [None] * examples if scores.skipped is None else [r or None for r in scores.skipped]
    columns: dict[str, pa.Array] = {
        "id": ids,
        "source": sources,
        "score": pa.array(values, pa.float64()),
        "skipped": pa.array(reasons, pa.string()).dictionary_encode(),
    }
    for name, detail in scores.details.items():
        columns[name] = _column(np.asarray(detail))
    if scores.features is not None:
        with _part_file(features_path(folder, number)) as path, path.open("wb") as file:
            np.save(file, np.asarray(scores.features, dtype=np.float16))
    table = pa.table(columns, metadata={KERNEL: scores.kernel} if scores.kernel else None)
    write_part_table(part_path(folder, number), table)


def write_part_table(path: Path, table: pa.Table) -> None:
    """Write the table of a part by rename."""
    with _part_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _part_file(path: Path) -> AbstractContextManager[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not alone: a process that was held up or cut off may write what another one has taken over.
    return replacing(path, durable=True)


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a whole pool, in the pool's order; columns are read on demand."""

    parts: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path) -> "ScoreTable":
        """Open the scores of a finished ``score`` artifact."""
        # By number, because from 100,000 parts on the names have one more digit.
        parts = sorted((folder / SCORES).glob("part-*.parquet"), key=_number)
        if not parts:
            raise StageError(f"no scores in {folder}", hint="run the score stage again")
        return cls(tuple(parts))

    @cached_property
    def _starts(self) -> np.ndarray:
        counts = []
        for path in self.parts:
            with _opened(path) as file:
                counts.append(file.metadata.num_rows)
        return np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def details(self) -> tuple[str, ...]:
        """The names of the detail columns."""
        with _opened(self.parts[0]) as file:
            names = file.schema_arrow.names
        return tuple(name for name in names if name not in OWN_COLUMNS)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return one column as it is in the file."""
        return pa.chunked_array([_read(path, name) for path in self.parts])

    def detail(self, name: str) -> np.ndarray:
        """Return a detail, ``[rows]`` or ``[rows, width]``."""
        return np.concatenate([_to_numpy(_read(path, name)) for path in self.parts])

    def features(self) -> tuple[np.ndarray, ...]:
        """Return the feature vectors of each part, memory-mapped, float16 ``[rows, width]``.

        Raises:
            StageError: the scorer returned none.
        """
        paths = [features_path(path.parents[1], _number(path)) for path in self.parts]
        if not all(path.is_file() for path in paths):
            raise StageError(
                "these scores have no features", hint="use a scorer that stores features"
            )
        return tuple(np.load(path, mmap_mode="r") for path in paths)

    def score(self) -> np.ndarray:
        """Return the scores, float64 ``[rows]``; NaN for a skipped row."""
        out = np.empty(len(self), dtype=np.float64)
        for start, stop, column in self._columns("score"):
            out[start:stop] = column.to_numpy()
        return out

    def ids(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Return ids as two big-endian uint64 words, ``[rows, 2]``; their order breaks ties.

        Args:
            rows: sorted positions; by default all.
        """
        out = np.empty((len(self) if rows is None else len(rows), 2), dtype=np.uint64)
        for start, stop, column in self._columns("id", rows):
            words = _words(column)
            low, high = (start, stop) if rows is None else np.searchsorted(rows, [start, stop])
            out[low:high] = words if rows is None else words[rows[low:high] - start]
        return out

    def sources(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return a code for each row, int32 ``[rows]``, and the names of the codes."""
        names: dict[str, int] = {}
        out = np.empty(len(self), dtype=np.int32)
        for start, stop, column in self._columns("source", dictionary=True):
            own = [names.setdefault(name, len(names)) for name in column.dictionary.to_pylist()]
            out[start:stop] = np.asarray(own, dtype=np.int32)[column.indices.to_numpy()]
        return out, tuple(names)

    def skipped(self) -> dict[str, int]:
        """Return how many rows were skipped for each reason."""
        counts: dict[str, int] = {}
        for path in self.parts:
            column = _read(path, "skipped").cast(pa.string())
            for entry in column.value_counts().to_pylist():
                if entry["values"] is not None:
                    counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
        return counts

    def _columns(
        self, name: str, rows: np.ndarray | None = None, *, dictionary: bool = False
    ) -> Iterator[tuple[int, int, pa.Array]]:
        """Yield the first row, the end and the column of each part, or of parts with ``rows``."""
        starts = self._starts if rows is None else np.searchsorted(rows, self._starts)
        parts = np.flatnonzero(np.diff(starts)).tolist()
        read = partial(_read, name=name, dictionary=dictionary)
        for part, column in zip(parts, ahead(read, [self.parts[i] for i in parts]), strict=True):
            yield int(self._starts[part]), int(self._starts[part + 1]), column


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


@contextmanager
def _opened(path: Path, *, dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, read_dictionary=list(dictionary)) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(
            f"{path} cannot be read: {error}",
            hint="rerun the stage with --fresh score",
        ) from None


def _read(path: Path, name: str, *, dictionary: bool = False) -> pa.Array:
    """Return a column of one part. Not ``pq.read_table``: it takes 2 ms a file, this 0.3."""
    with _opened(path, dictionary=[name] if dictionary else ()) as file:
        table = file.read(columns=[name], use_threads=False)
    if not table.num_columns:
        raise StageError(
            f"{path} has no column '{name}'",
            hint="were its shards scored with different options? Rerun with --fresh score",
        )
    column = table.column(0)
    # Several row groups give several chunks.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _words(ids: pa.Array) -> np.ndarray:
    width = ids.type.byte_width
    data = np.frombuffer(ids.buffers()[1], dtype=np.uint8)
    data = data[ids.offset * width : (ids.offset + len(ids)) * width]
    return data.view(">u8").reshape(-1, 2)


def _to_numpy(column: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)
    return np.asarray(column.to_numpy(zero_copy_only=False))

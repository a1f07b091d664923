"""Vectors of examples: float16 shards on disk, read block by block through memory maps."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from selectmoe_core.errors import StageError
from selectmoe_core.store import replacing, write_json

FORMAT = 1
"""The version of the files of vectors; a new number makes all of them again."""
VECTORS = "vectors"
MANIFEST = "vectors.json"
OPEN = 64
"""Shards that are open at once: each memory map holds a file descriptor."""
ROWS = 8192
"""Rows that the checks look at together."""
AGAIN = "rerun the stage with --fresh embed"


class Vectors:
    """The vectors of all examples of a pool, in its order; nothing is read before it is used.

    Args:
        folder: the artifact of a stage ``embed``.

    Raises:
        StageError: the files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_bytes())
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {found['format']}, not {FORMAT}")  # noqa: TRY301
            self.width = int(found["width"])
            self._starts = np.cumsum([0, *map(int, found["rows"])])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path} is missing or damaged: {error}", hint=AGAIN) from None
        self._part = lru_cache(OPEN)(self._open)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row of each block, and its vectors as a view of the file.

        Args:
            rows: the most rows of a block; blocks do not cross the shards.

        Yields:
            The position of the first row, and float16 ``[up to rows, width]``.
        """
        for number, (first, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            part = self._part(number)
            for start in range(0, int(end - first), rows):
                yield int(first) + start, part[start : start + rows]

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the vectors of some rows in the given order, float16 ``[rows, width]``.

        Raises:
            IndexError: a row is outside.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"a row lies outside the {len(self)} vectors")
        out = np.empty((len(wanted), self.width), dtype=np.float16)
        numbers = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            out[places] = self._part(number)[wanted[places] - self._starts[number]]
        return out

    @cached_property
    def zeros(self) -> int:
        """How many examples have a vector of zeros: the embedder saw nothing in them."""
        return sum(int((~block.any(axis=1)).sum()) for _, block in self.blocks(ROWS))

    def all_equal(self) -> bool:
        """Return whether every example has the same vector."""
        first = self.take([0])[0]
        return all((block == first).all() for _, block in self.blocks(ROWS))

    def _open(self, number: int) -> np.ndarray:
        path = vectors_path(self.folder, number)
        shape = (int(self._starts[number + 1] - self._starts[number]), self.width)
        try:
            part: np.ndarray = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise StageError(f"{path} is missing or damaged: {error}", hint=AGAIN) from None
        if part.shape != shape or part.dtype != np.float16:
            what = f"{path} holds {part.dtype} {part.shape}, not float16 {shape}"
            raise StageError(what, hint=AGAIN)
        return part


def vectors_path(folder: Path, number: int) -> Path:
    """Return the file of a shard's vectors."""
    return folder / VECTORS / f"part-{number:05d}.npy"


def write_vectors(folder: Path, number: int, vectors: np.ndarray, examples: int) -> None:
    """Check a shard's vectors and write them by rename, so that an existing file is complete.

    Raises:
        StageError: an example has no vector, or one that is not finite in float16.
    """
    half = _checked(np.asarray(vectors), examples)
    path = vectors_path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
        np.save(file, half)


def finish_vectors(folder: Path, rows: Sequence[int]) -> Vectors:
    """Write the manifest of the shards and return the vectors.

    Args:
        folder: the artifact's folder.
        rows: examples of each shard, in order.

    Raises:
        StageError: a shard is missing, or the shards have vectors of different widths.
    """
    widths: dict[int, int] = {}
    for number in range(len(rows)):
        path = vectors_path(folder, number)
        if not path.is_file():
            raise StageError(f"{path} is missing", hint=AGAIN)
        widths.setdefault(int(np.load(path, mmap_mode="r").shape[1]), number)
    if len(widths) > 1:
        found = ", ".join(f"{width} in shard {number}" for width, number in widths.items())
        raise StageError(
            f"the embedder made vectors of different widths: {found}",
            hint="fix the embedder: all vectors of the pool and the targets have one width",
        )
    write_json(folder / MANIFEST, {"format": FORMAT, "width": next(iter(widths)), "rows": rows})
    return Vectors(folder)


def _checked(vectors: np.ndarray, examples: int) -> np.ndarray:
    """Return vectors as float16; raise if they cannot be used."""
    if vectors.ndim != 2 or len(vectors) != examples or not vectors.shape[1]:
        raise StageError(
            f"the embedder returned an array of shape {vectors.shape} for {examples} examples",
            hint="fix the embedder: it must return [examples, width], a row for each example",
        )
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(vectors, dtype=np.float16)
    bad = np.flatnonzero(~np.isfinite(half).all(axis=1))
    if len(bad):
        raise StageError(
            f"the vectors of {len(bad)} of {examples} examples are not finite in float16, the "
            f"first is that of example {bad[0]} of its shard",
            hint="are the model's weights finite? An embedder must scale numbers above 65504",
        )
    return half

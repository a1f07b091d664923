"""The shards that a run finished before it was interrupted: what is damaged is made again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from selectmoe_core.data.scores import FEATURES, SCORES, features_path
from selectmoe_core.data.vectors import VECTORS
from selectmoe_core.stages.scoring.cuts import Cut


def remove_damaged_scores(folder: Path, cuts: Sequence[Cut]) -> Iterator[str]:
    """Remove scores that are cut short, cannot be read or belong to no shard; say which.

    Args:
        folder: the artifact's folder.
        cuts: the shards of the pool.
    """
    _remove_half_written(folder / FEATURES)
    for path, problem in _damaged(folder / SCORES, "parquet", cuts, _score_problem):
        path.unlink()
        features_path(folder, _number(path)).unlink(missing_ok=True)
        yield f"{path} {problem}"


def remove_damaged_vectors(folder: Path, cuts: Sequence[Cut]) -> Iterator[str]:
    """Remove vectors that are cut short, cannot be read or belong to no shard; say which."""
    for path, problem in _damaged(folder / VECTORS, "npy", cuts, _vector_problem):
        path.unlink()
        yield f"{path} {problem}"


def _damaged(
    folder: Path, ending: str, cuts: Sequence[Cut], problem_of: Callable[[Path, int], str]
) -> Iterator[tuple[Path, str]]:
    _remove_half_written(folder)
    rows = {number: stop - start for number, start, stop in cuts}
    for path in sorted(folder.glob(f"part-*.{ending}")):
        if problem := problem_of(path, rows.get(_number(path), 0)):
            yield path, problem


def _remove_half_written(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    for path in folder.glob(".part-*"):
        path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


def _score_problem(path: Path, rows: int) -> str:
    """Return what is wrong with a part; it is read whole, since nobody looks at it before the end.

    A part of which a column cannot be read would end the stage after all others were scored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = features_path(path.parents[1], _number(path))
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = sum(batch.num_rows for batch in file.iter_batches())
        if features.is_file() and len(np.load(features, mmap_mode="r")) != rows:
            return "has features of another shard"
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0][:100]})"
    return "" if found == rows else f"holds {found} scores for a shard of {rows}"


def _vector_problem(path: Path, rows: int) -> str:
    """Return what is wrong with a part: a map of a file that is cut short is refused."""
    try:
        found = len(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0][:100]})"
    return "" if found == rows else f"holds {found} vectors for a shard of {rows}"

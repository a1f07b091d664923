"""The shards that a run finished before it was interrupted: what is damaged is scored again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from selectmoe_core.data.scores import SCORES, features_path
from selectmoe_core.stages.scoring.cuts import Cut


def remove_damaged(folder: Path, cuts: Sequence[Cut]) -> Iterator[str]:
    """Remove the parts that are cut short, cannot be read or belong to no shard; say which.

    Args:
        folder: the artifact's folder.
        cuts: the shards of the pool.
    """
    rows = {number: stop - start for number, start, stop in cuts}
    for path in sorted((folder / SCORES).glob("part-*.parquet")):
        number = int(path.stem.removeprefix("part-"))
        features = features_path(folder, number)
        if problem := _problem(path, features, rows.get(number, 0)):
            path.unlink()
            features.unlink(missing_ok=True)
            yield f"{path} {problem}"


def _problem(path: Path, features: Path, rows: int) -> str:
    """Return what is wrong with a part; it is read whole, since nobody looks at it before the end.

    A part of which a column cannot be read would end the stage after all others were scored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = sum(batch.num_rows for batch in file.iter_batches())
        if features.is_file() and len(np.load(features, mmap_mode="r")) != rows:
            return "has features of another shard"
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0][:100]})"
    return "" if found == rows else f"holds {found} scores for a shard of {rows}"

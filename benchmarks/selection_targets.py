"""Scores by similarity to targets: a million vectors of 1,024 numbers against 500 targets.

    python benchmarks/selection_targets.py --work DIR              # 2.1 GB of disk
    python benchmarks/selection_targets.py --work DIR --rows 50000 --only ranks

``ranks`` is RDS+: 500 targets take turns until a quarter of the pool is taken; ``mean`` is LESS.
Both read the vectors from disk and give the scores of all rows. ``small_ranks`` and ``small_mean``
run the same beside the naive way, in the same run: the whole matrix of similarities in memory, and
for the turns a sort of each column and a loop. They fail where the scores differ from those that
the naive way finds in the same similarities. Goal: a million rows in 60 seconds on 2 cores. Writes
JSON lines, with seconds of wall-clock time and of the processor, and the largest memory of the
process in GiB.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from selection_parts import RowsBench, Timed, memory, run_parts

from selectmoe_core.data import Vectors
from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_targeted.config import SimilarityConfig
from selectmoe_targeted.ranking import Found, Tasks, rank
from selectmoe_targeted.sources import Cosines

WIDTH, TARGETS, SHARD = 1024, 500, 1 << 16
BLOBS = 3000
"""Random directions that the vectors are drawn around."""
SPREAD = 0.05
SMALL = 20_000
GOAL = 60.0


class Bench(RowsBench):
    """The parts."""

    def ranks(self) -> dict[str, Any]:
        """Let 500 targets take turns."""
        return self._scored(self.rows, "ranks")

    def mean(self) -> dict[str, Any]:
        """Take the mean similarity to 500 targets."""
        return self._scored(self.rows, "mean")

    def small_ranks(self) -> dict[str, Any]:
        """Compare with a sort of every column and a loop."""
        return self._compared("ranks", plain_ranks)

    def small_mean(self) -> dict[str, Any]:
        """Compare with the mean over the whole matrix."""
        return self._compared("mean", lambda whole: whole.mean(axis=1))

    def _scored(self, rows: int, per_task: Any) -> dict[str, Any]:  # noqa: ANN401
        pool, targets = self._made(rows)
        found = Timed.of(lambda: similar(pool, targets, per_task))
        about = {"rows": rows, "width": WIDTH, "targets": TARGETS, "per_task": per_task}
        threads = {"threads": torch.get_num_threads(), "goal_seconds": GOAL}
        return about | found.figures() | threads | memory()

    def _compared(
        self,
        per_task: Any,  # noqa: ANN401
        plain: Callable[[np.ndarray], np.ndarray],
    ) -> dict[str, Any]:
        pool, targets = self._made(SMALL)
        found = Timed.of(lambda: similar(pool, targets, per_task))
        naive = Timed.of(lambda: plain(matrix(pool, targets)))
        # Similarities of another product differ in the last bit, and a swap of two rows shifts all.
        source = Cosines(pool, targets, "cpu", SimilarityConfig().block_rows)
        expected = plain(torch.cat([block for _, block in source.blocks()]).numpy())
        differ = np.abs(found.value.score - expected) > 1e-6
        if differ.any():
            raise AssertionError(f"{differ.sum()} of {SMALL} scores differ from the naive way's")
        return {"rows": SMALL, "per_task": per_task, "equal": True} | found.beside(naive)

    def _made(self, rows: int) -> tuple[Vectors, Vectors]:
        """Return vectors of a pool and of targets, written where they are not there."""
        folders = self.work / f"pool-{rows}", self.work / "targets"
        for folder, count, seed in zip(folders, (rows, TARGETS), (3, 4), strict=True):
            if not (folder / "vectors.json").is_file():
                write(folder, count, seed)
        return Vectors(folders[0]), Vectors(folders[1])


def write(folder: Path, rows: int, seed: int) -> None:
    """Write random vectors around common directions."""
    around = np.random.default_rng(0).standard_normal((BLOBS, WIDTH), dtype=np.float32)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    random, sizes = np.random.default_rng(seed), []
    for number, start in enumerate(range(0, rows, SHARD)):
        size = min(SHARD, rows - start)
        noise = SPREAD * random.standard_normal((size, WIDTH), dtype=np.float32)
        write_vectors(folder, number, around[random.integers(BLOBS, size=size)] + noise, size)
        sizes.append(size)
    finish_vectors(folder, sizes)


def similar(pool: Vectors, targets: Vectors, per_task: Any) -> Found:  # noqa: ANN401
    """Return the scores, as the scorer computes them."""
    config = SimilarityConfig(per_task=per_task)
    source = Cosines(pool, targets, "cpu", config.block_rows)
    tasks = Tasks(("task",), np.zeros(len(targets), dtype=np.int64))
    ids = np.arange(2 * len(pool), dtype=np.uint64).reshape(-1, 2)
    return rank(source, tasks, config, ids, lambda _: lambda _: None)


def matrix(pool: Vectors, targets: Vectors) -> np.ndarray:
    """Return all cosines in memory, fp32 ``[rows, targets]``."""
    both = [vectors.take(np.arange(len(vectors))).astype(np.float32) for vectors in (pool, targets)]
    unit = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in both]
    return np.asarray(unit[0] @ unit[1].T)


def plain_ranks(whole: np.ndarray) -> np.ndarray:
    """Return the scores of a round robin over sorted columns; the rest by the largest cosine."""
    rows, targets = whole.shape
    orders = [np.argsort(-whole[:, target], kind="stable").tolist() for target in range(targets)]
    places, used, taken = [0] * targets, set(), []
    most = round(SimilarityConfig().depth * rows)
    while len(taken) < most:
        target = len(taken) % targets
        while orders[target][places[target]] in used:
            places[target] += 1
        row = orders[target][places[target]]
        used.add(row)
        taken.append(row)
    largest = whole.max(axis=1)
    rest = sorted((row for row in range(rows) if row not in used), key=lambda row: -largest[row])
    score = np.empty(rows)
    score[taken + rest] = 1 - np.arange(rows) / rows
    return score


PARTS = ("small_ranks", "small_mean", "ranks", "mean")


def main() -> None:
    """Run the parts."""
    run_parts(__doc__, Bench, PARTS, "numpy", "torch")


if __name__ == "__main__":
    main()

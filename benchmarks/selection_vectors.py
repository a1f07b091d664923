"""Selectors that read vectors: a million of them in clusters, 100,000 by distance, and coverage.

    python benchmarks/selection_vectors.py --work DIR                # all parts, 2.2 GB of disk
    python benchmarks/selection_vectors.py --work DIR --only small_clusters small_k_center
    python benchmarks/selection_vectors.py --work DIR --rows 100000 --only clusters

``clusters`` times cluster-round-robin over float16 vectors of 1,024 numbers with 1,000 clusters,
``k_center`` the distance filter over 100,000 of them, ``facility`` coverage. The small parts time
the same beside the naive way in the same run, and fail where the two choose other rows: for
clusters, k-means of scikit-learn with its defaults over all vectors in memory and a loop over
lists (equal turns for equal clusters); for distances, one row at a time against all that are kept;
for coverage, every gain again in every step over the whole matrix. ``libraries`` compares k-means
of scikit-learn and faiss (``pip install faiss-cpu``). Writes JSON lines, with seconds of wall-clock
time and of the processor, and the largest memory of the process in GiB.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from selection_parts import RowsBench, Timed, memory, run_parts

from selectmoe_core import Job, ScoreTable, ShardScores
from selectmoe_core.data import Vectors
from selectmoe_core.data.scores import write_part
from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_diverse.cluster_round_robin import ClusterRoundRobin, in_turns
from selectmoe_diverse.clusters import k_means
from selectmoe_diverse.config import (
    ClusterRoundRobinConfig,
    FacilityLocationConfig,
    KCenterConfig,
)
from selectmoe_diverse.facility_location import FacilityLocation
from selectmoe_diverse.k_center import KCenter
from selectmoe_diverse.rows import unit

WIDTH = 1024
SHARD = 1 << 16
BLOBS = 3000
"""Random directions that the vectors are drawn around."""
SPREAD = 0.02
NEAR = (0.002, 0.03)
"""For distances, the spread differs from row to row: many are close to others, many are not."""
THRESHOLD = 0.9


class Bench(RowsBench):
    """The parts."""

    def clusters(self) -> dict[str, Any]:
        """Let 1,000 clusters of many vectors take turns."""
        table, job = self._made(self.rows)
        config = ClusterRoundRobinConfig(k=self.rows // 20, clusters=1000)
        found = Timed.of(lambda: ClusterRoundRobin(config).select(table, job))
        sizes = np.unique(found.value.cluster, return_counts=True)[1]
        about = {"rows": self.rows, "width": WIDTH, "clusters": 1000, "kept": config.k}
        return about | found.figures() | memory() | {"clusters_kept_from": len(sizes)}

    def k_center(self) -> dict[str, Any]:
        """Keep 20,000 of 100,000 by score and distance."""
        rows = min(self.rows, 100_000)
        table, job = self._made(rows, NEAR)
        config = KCenterConfig(k=rows // 5, threshold=THRESHOLD)
        found = Timed.of(lambda: KCenter(config).select(table, job))
        last = np.flatnonzero(np.argsort(-table.score()) == found.value.rows[-1])
        about = {"rows": rows, "width": WIDTH, "kept": len(found.value.rows)}
        return about | {"looked_at": int(last[0]) + 1} | found.figures() | memory()

    def facility(self) -> dict[str, Any]:
        """Cover 100,000 by 1,000."""
        rows = min(self.rows, 100_000)
        table, job = self._made(rows)
        config = FacilityLocationConfig(k=1000)
        found = Timed.of(lambda: FacilityLocation(config).select(table, job))
        about = {"rows": rows, "width": WIDTH, "kept": 1000, "sample": config.sample}
        return about | {"candidates": config.candidates} | found.figures() | memory()

    def small_clusters(self) -> dict[str, Any]:
        """Compare with k-means over everything in memory and a loop over lists."""
        table, job = self._made(20_000)
        config = ClusterRoundRobinConfig(k=1000, clusters=100, sample=10_000)
        ours = Timed.of(lambda: ClusterRoundRobin(config).select(table, job))
        plain = Timed.of(lambda: _plain_clusters(job, table, 100, 1000))
        labels, rows = plain.value
        order = np.argsort(-table.score())
        places, _ = in_turns(labels[order], 1000)
        if rows != order[places].tolist():
            raise AssertionError("equal clusters take other turns than the loop over lists")
        return self._ratio(20_000, ours, plain) | {"equal_turns": True}

    def small_k_center(self) -> dict[str, Any]:
        """Compare with one row at a time against all that are kept."""
        table, job = self._made(10_000, NEAR)
        config = KCenterConfig(k=5000, threshold=THRESHOLD)
        ours = Timed.of(lambda: KCenter(config).select(table, job))
        plain = Timed.of(lambda: _plain_k_center(job, table, 5000))
        if ours.value.rows.tolist() != plain.value:
            raise AssertionError("the selector keeps other rows than the loop over rows")
        return self._ratio(10_000, ours, plain) | {"kept": len(plain.value), "equal": True}

    def small_facility(self) -> dict[str, Any]:
        """Compare with every gain again in every step over the whole matrix."""
        table, job = self._made(3000)
        config = FacilityLocationConfig(k=150, quality=0.25)
        ours = Timed.of(lambda: FacilityLocation(config).select(table, job))
        plain = Timed.of(lambda: _plain_facility(job, table, 150, 0.25))
        if ours.value.rows.tolist() != plain.value:
            raise AssertionError("the selector keeps other rows than the plain greedy")
        return self._ratio(3000, ours, plain) | {"equal": True}

    def libraries(self) -> dict[str, Any]:
        """Find 100 clusters of 25,600 vectors with scikit-learn and with faiss."""
        import faiss
        from sklearn.cluster import KMeans, MiniBatchKMeans

        self._made(25_600)
        points = unit(self._vectors(25_600))
        ways: dict[str, Callable[[], Any]] = {
            "ours": lambda: k_means(points, 100, 1)[0],
            "sklearn": lambda: KMeans(100, n_init=1, random_state=1).fit(points).cluster_centers_,
            "sklearn_minibatch": lambda: (
                MiniBatchKMeans(100, n_init=1, random_state=1).fit(points).cluster_centers_
            ),
            "faiss": lambda: _faiss(faiss, points),
        }
        figures: dict[str, Any] = {"rows": len(points), "width": WIDTH, "clusters": 100}
        for name, way in ways.items():
            found = Timed.of(way)
            figures |= found.figures(f"{name}_")
            figures[f"{name}_distance"] = round(_distance(points, found.value), 4)
        return figures

    def _ratio(self, rows: int, ours: Timed, plain: Timed) -> dict[str, Any]:
        return {"rows": rows, "width": WIDTH} | ours.beside(plain)

    def _vectors(self, rows: int) -> np.ndarray:
        return Vectors(self.work / f"vectors-{rows}").take(np.arange(rows))

    def _made(
        self, rows: int, spread: tuple[float, float] = (SPREAD, SPREAD)
    ) -> tuple[ScoreTable, Job]:
        """Return a table of scores and a job with vectors, written where they are not there."""
        name = f"{rows}-near" if spread == NEAR else str(rows)
        folder, scores = self.work / f"vectors-{name}", self.work / f"scores-{name}"
        if not (folder / "vectors.json").is_file():
            random = np.random.default_rng(3)
            around = random.standard_normal((BLOBS, WIDTH), dtype=np.float32)
            around /= np.linalg.norm(around, axis=1, keepdims=True)
            sizes = []
            for number, start in enumerate(range(0, rows, SHARD)):
                size = min(SHARD, rows - start)
                noise = random.standard_normal((size, WIDTH), dtype=np.float32)
                noise *= random.uniform(*spread, size=(size, 1)).astype(np.float32)
                write_vectors(
                    folder, number, around[random.integers(BLOBS, size=size)] + noise, size
                )
                names = pa.array([f"source {n}" for n in range(5)])
                codes = random.integers(5, size=size).astype(np.int32)
                ids = pa.array([random.bytes(16) for _ in range(size)], pa.binary(16))
                sources = pa.DictionaryArray.from_arrays(codes, names)
                write_part(scores, number, ids, sources, ShardScores(random.random(size)))
                sizes.append(size)
            finish_vectors(folder, sizes)
        return ScoreTable.open(scores), Job(seed=1, inputs=Inputs(vectors=folder))


def _whole(job: Job) -> np.ndarray:
    assert job.inputs.vectors is not None
    vectors = Vectors(job.inputs.vectors)
    return unit(vectors.take(np.arange(len(vectors))))


def _plain_clusters(
    job: Job, table: ScoreTable, clusters: int, count: int
) -> tuple[np.ndarray, list[int]]:
    from sklearn.cluster import KMeans

    labels = KMeans(clusters, random_state=1).fit(_whole(job)).labels_.astype(np.int64)
    lists: dict[int, list[int]] = {}
    for row in np.argsort(-table.score()).tolist():
        lists.setdefault(int(labels[row]), []).append(row)
    score = table.score()
    kept: list[int] = []
    while len(kept) < count:
        kept += sorted((own.pop(0) for own in lists.values() if own), key=lambda row: -score[row])
    return labels, kept[:count]


def _plain_k_center(job: Job, table: ScoreTable, count: int) -> list[int]:
    points = _whole(job)
    kept: list[int] = []
    for row in np.argsort(-table.score()).tolist():
        if not kept or (points[kept] @ points[row]).max() < THRESHOLD:
            kept.append(row)
        if len(kept) == count:
            break
    return kept


def _plain_facility(job: Job, table: ScoreTable, count: int, weight: float) -> list[int]:
    points = _whole(job)
    order = np.argsort(-table.score())
    similar = points[order].astype(np.float64) @ points.T.astype(np.float64)
    quality = 1 - (np.arange(len(order)) + 0.5) / len(order)
    best = np.zeros(len(order))
    kept: list[int] = []
    for _ in range(count):
        gained = np.round(np.maximum(similar - best, 0).sum(axis=1), 4)
        gains = (1 - weight) / len(order) * gained + weight * quality / count
        gains[kept] = -1
        kept.append(int(np.argmax(gains)))
        best = np.maximum(best, similar[kept[-1]])
    return [int(row) for row in order[kept]]


def _faiss(faiss: Any, points: np.ndarray) -> np.ndarray:  # noqa: ANN401
    fit = faiss.Kmeans(WIDTH, 100, niter=20, seed=1, max_points_per_centroid=len(points))
    fit.train(points)
    return np.asarray(fit.centroids)


def _distance(points: np.ndarray, centres: np.ndarray) -> float:
    squares = 1 - 2 * points @ centres.T + np.einsum("ij,ij->i", centres, centres)
    return float(squares.min(axis=1).mean())


PARTS = (
    "small_clusters",
    "small_k_center",
    "small_facility",
    "clusters",
    "k_center",
    "facility",
    "libraries",
)


def main() -> None:
    """Run the parts."""
    run_parts(__doc__, Bench, PARTS, "numpy", "scikit-learn")


if __name__ == "__main__":
    main()

"""Vectors in memory, and tables of scores beside vectors on disk, for tests of selectors."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from selectmoe_core import Job, ScoreTable, ShardScores
from selectmoe_core.data.scores import write_part
from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_core.plugin.protocols import Inputs


@dataclass
class PlainRows:
    """An array that is read as vectors are, and remembers how much was read at once."""

    array: np.ndarray
    most: int = field(default=0)

    @property
    def width(self):
        return self.array.shape[1]

    def __len__(self):
        return len(self.array)

    def blocks(self, rows):
        for start in range(0, len(self.array), rows):
            self.most = max(self.most, rows)
            yield start, self.array[start : start + rows]

    def take(self, rows):
        self.most = max(self.most, len(rows))
        return self.array[rows]


def blobs(random, clusters, each, width=12, spread=0.05):
    """Vectors around random directions, float16, and the cluster of each; in random order."""
    centres = random.normal(size=(clusters, width))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = random.permutation(np.repeat(np.arange(clusters), each))
    vectors = centres[labels] + spread * random.normal(size=(len(labels), width))
    # Lengths differ: only the direction counts.
    vectors *= random.uniform(0.5, 20, size=(len(labels), 1))
    return vectors.astype(np.float16), labels


def table_beside(folder: Path, vectors, random, scores=None) -> tuple[ScoreTable, list[dict], Job]:
    """A table with ties and skipped rows, its rows as plain values, and a job with the vectors."""
    rows = len(vectors)
    ids = [random.bytes(16) for _ in range(rows)]
    score = random.integers(0, 12, size=rows).astype(float) if scores is None else scores
    score[random.random(rows) < 0.08] = np.nan
    sources = ["abc"[n] for n in random.choice(3, p=[0.6, 0.3, 0.1], size=rows)]
    reasons = ["cut" if np.isnan(value) else None for value in score]
    for number, part in enumerate(np.array_split(np.arange(rows), 3)):
        write_part(
            folder / "scores",
            number,
            pa.array([ids[row] for row in part], pa.binary(16)),
            pa.array([sources[row] for row in part]).dictionary_encode(),
            ShardScores(score[part], [reasons[row] for row in part]),
        )
        write_vectors(folder / "vectors", number, vectors[part], len(part))
    sizes = [len(part) for part in np.array_split(np.arange(rows), 3)]
    finish_vectors(folder / "vectors", sizes)
    plain = [{"row": n, "id": ids[n], "score": score[n], "source": sources[n]} for n in range(rows)]
    job = Job(seed=4, inputs=Inputs(vectors=folder / "vectors"))
    return ScoreTable.open(folder / "scores"), plain, job


def best_first(plain):
    """The scored rows, the best first, ties by id."""
    scored = [row for row in plain if not np.isnan(row["score"])]
    return sorted(scored, key=lambda row: (-row["score"], row["id"]))


def cosines(vectors):
    """All cosine similarities, float64."""
    whole = vectors.astype(np.float64)
    whole /= np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-300)
    return whole @ whole.T

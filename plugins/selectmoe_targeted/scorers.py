"""The scorers ``similarity`` and ``bm25``."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from selectmoe_core import DataError, Job, Shard, ShardScores, StageError
from selectmoe_core.data import Pool, Vectors
from selectmoe_targeted.candidates import tasks_of
from selectmoe_targeted.config import Bm25Config, SimilarityConfig, TargetedConfig
from selectmoe_targeted.ranking import Found, Tasks, rank
from selectmoe_targeted.sources import Cosines, Similarities

NOTHING_TO_COMPARE = "nothing to compare (its vector is zero, or it has no known word)"


class FoundScorer:
    """Hands out what was found for the whole pool, shard by shard."""

    def __init__(self, found: Found, tasks: Tasks) -> None:
        self._found = found
        self._tasks = tasks

    def score(self, shard: Shard) -> ShardScores:
        """Return the scores of a shard.

        Details: ``task:NAME`` for every target task, ``nearest``, the row of the most similar
        target, and ``similarity``, to that target.
        """
        found, rows = self._found, shard.rows
        score = found.score[rows]
        details = {
            f"task:{name}": found.by_task[task, rows] for task, name in enumerate(self._tasks.names)
        }
        return ShardScores(
            score,
            [NOTHING_TO_COMPARE if skip else None for skip in np.isnan(score).tolist()],
            details | {"nearest": found.nearest[rows], "similarity": found.similarity[rows]},
        )


class Similarity:
    """Compares vectors; see ``SimilarityConfig``."""

    def __init__(self, config: SimilarityConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator[FoundScorer]:
        """Compare the whole pool with the targets."""
        inputs = job.inputs
        vectors, others = Vectors(_there(inputs.vectors)), Vectors(_there(inputs.target_vectors))
        if vectors.width != others.width:
            raise StageError(
                f"the pool's vectors have the width {vectors.width}, the targets' {others.width}",
                hint="fix the embedder: both must have one width",
            )
        source = Cosines(vectors, others, job.device, self.config.block_rows)
        yield _found(source, self.config, job)


class Bm25:
    """Compares words; see ``Bm25Config``."""

    def __init__(self, config: Bm25Config) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator[FoundScorer]:
        """Index the pool and compare it with the targets."""
        from selectmoe_targeted.words import Words

        pool, targets = (
            Pool.open(_there(folder)) for folder in (job.inputs.pool, job.inputs.targets)
        )
        yield _found(Words(pool, targets, self.config), self.config, job)


def _found(source: Similarities, config: TargetedConfig, job: Job) -> FoundScorer:
    targets = Pool.open(_there(job.inputs.targets))
    tasks = Tasks(*tasks_of(targets.source_names().to_pylist()))
    for number, name in enumerate(tasks.names):
        if source.empty[tasks.task_of == number].all():
            raise DataError(
                f"no example of the target task '{name}' can be compared with the pool",
                hint="check the texts of this task in [targets], or remove it",
            )
    ids = Pool.open(_there(job.inputs.pool)).ids()
    with ExitStack() as bars:
        found = rank(
            source,
            tasks,
            config,
            ids,
            lambda name: bars.enter_context(job.progress.task(name, source.rows)),
        )
    return FoundScorer(found, tasks)


def _there(folder: Path | None) -> Path:
    if folder is None:
        raise StageError("pool, targets or vectors are missing", hint="run the stages before it")
    return folder

"""Opening the vectors of a job."""

from selectmoe_core import Job, ScoreTable, StageError
from selectmoe_core.data import Vectors


def vectors_of(job: Job, scores: ScoreTable) -> Vectors:
    """Return the pool's vectors.

    Raises:
        StageError: the recipe makes none, or they are of another pool.
    """
    if job.inputs.vectors is None:
        raise StageError("this selector reads vectors", hint="add a table [embed]")
    vectors = Vectors(job.inputs.vectors)
    if len(vectors) != len(scores):
        raise StageError(
            f"{len(vectors):,} vectors for {len(scores):,} scores",
            hint="rerun the stages with --fresh embed",
        )
    return vectors

"""``embed``: a vector for each example of the pool or of the targets, in shards; made once."""

import json
from functools import partial

import numpy as np

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.vectors import Vectors, finish_vectors, vectors_path, write_vectors
from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Role, Shard
from selectmoe_core.runtime.distributed import barrier
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.scoring.claims import forget_claims
from selectmoe_core.stages.scoring.driver import TOKENS, make_shards
from selectmoe_core.stages.scoring.finished import remove_damaged_vectors
from selectmoe_core.stages.scoring.work import Work
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Make the vectors of all examples.

    If several processes work, the first returns the facts.
    """
    pool = context.pool()
    cuts = make_shards(context, pool, shard_work(context, pool))
    barrier()  # every process has written its shards
    if not context.job.world.main:
        return {}
    worked = forget_claims(context.claims, context.folder)
    vectors = finish_vectors(context.folder, [stop - start for _, start, stop in cuts])
    _check(vectors, pool, context)
    return {**_facts(context, vectors), **worked}


def join(context: Context) -> None:
    """Make vectors beside other processes; the run that finishes the stage does the rest."""
    pool = context.pool()
    make_shards(context, pool, shard_work(context, pool))


def summary(facts: Facts) -> str:
    """Return how many vectors there are, and how wide they are."""
    zeros = f", {facts['zeros']:,} of zeros" if facts["zeros"] else ""
    return f"vectors {facts['examples']:,}{zeros}, width {facts['width']:,}"


def shard_work(context: Context, _: Pool) -> Work[np.ndarray]:
    """Return what the stage makes of each shard."""
    role: Role = "pool" if context.spec.rows_of == "pool" else "target"

    def write(shard: Shard, vectors: np.ndarray) -> None:
        write_vectors(context.folder, shard.number, vectors, len(shard.rows))

    return Work(
        verb="embed",
        done="embedded",
        opened=lambda job: context.part.open(job, role),
        path=partial(vectors_path, context.folder),
        write=write,
        remove_damaged=partial(remove_damaged_vectors, context.folder),
    )


def _check(vectors: Vectors, pool: Pool, context: Context) -> None:
    """Raise if a row has no vector, or if the vectors say nothing."""
    name = context.component.name
    if len(vectors) != len(pool):
        raise StageError(
            f"{len(vectors)} vectors for {len(pool)} examples",
            hint="rerun the stage with --fresh embed",
        )
    hint = "check the embedder's options, the chat format and the model that it reads"
    if vectors.zeros == len(pool):
        raise StageError(
            f"{name} made a vector of zeros for each of {len(pool)} examples", hint=hint
        )
    if len(pool) > 1 and vectors.all_equal():
        raise StageError(f"{name} made the same vector for all {len(pool)} examples", hint=hint)


def _facts(context: Context, vectors: Vectors) -> Facts:
    facts = {"examples": len(vectors), "width": vectors.width, "zeros": vectors.zeros}
    tokens = context.folder / TOKENS
    if tokens.is_file():
        return {**facts, "tokens": json.loads(tokens.read_text(encoding="utf-8"))}
    return facts

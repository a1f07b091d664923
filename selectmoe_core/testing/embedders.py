"""The check of an embedder: the vector of an example does not depend on other examples."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from selectmoe_core.config import Config
from selectmoe_core.data.examples import Example
from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Embedder, Job, Role, ShardEmbedder
from selectmoe_core.testing.components import built
from selectmoe_core.testing.pools import Bench
from selectmoe_core.testing.requirement import errors_of, require, require_methods
from selectmoe_core.testing.trials import execution_variants, given, shard_by_shard


def check_embedder(
    component: Component[Any, Any],
    *,
    options: Mapping[str, object] | None = None,
    examples: Sequence[Example] | None = None,
    model: str | Path | None = None,
    models: Models | None = None,
    checkpoints: Path | None = None,
    job: Job | None = None,
    tolerance: float = 2e-3,
) -> None:
    """Run an embedder on a small pool and on the same examples as targets, and check the contract.

    Every example gets a vector that is finite in float16, all of one width, and not all equal. Two
    runs are equal to the last bit; the vectors do not depend on how the pool is cut or ordered, on
    the other examples of a shard, on execution-only options, or on the seed unless the component
    declares ``seeded``. Vectors of the pool and of targets have one width.

    Args:
        component: the embedder.
        options: as a recipe would write them.
        examples: the pool, at least two different examples; by default generated ones.
        model: a model's folder or reference, for an embedder that needs one.
        models: the loader; by default the installed plugins' models.
        checkpoints: the folder of a warm-up's checkpoints, for an embedder that needs them.
        job: the job with seed, device, dtype and chat format; its inputs are replaced.
        tolerance: the largest accepted difference, as a part of the longest vector's length.

    Raises:
        AssertionError: says what the embedder did, and what the core expects.
    """
    start = given(
        component, Kind.EMBEDDER, options, examples=examples, model=model, models=models, job=job
    )
    with tempfile.TemporaryDirectory() as folder:
        needed = start.model, checkpoints
        trial = _Trial(component, start.config, start.base, needed, tolerance, Path(folder))
        widths = {role: trial.check(start.pool, role) for role in get_args(Role)}
    require(
        len(set(widths.values())) == 1,
        f"{component.name}: vectors of pool and targets differ in width: {widths}",
    )


@dataclass(frozen=True)
class _Trial:
    """An embedder and the inputs of its run: model and checkpoints."""

    component: Component[Any, Any]
    config: Config
    base: Job
    given: tuple[ModelRef | None, Path | None]
    tolerance: float
    folder: Path

    def check(self, pool: list[Example], role: Role) -> int:
        """Check the contract for the pool or for targets; return the width of the vectors."""
        bench = Bench(self.folder / role, pool)
        whole = self.embed(bench, role, len(pool), plainly=True)
        name = self.component.name
        require(whole.any(), f"{name}: every vector is zeros")
        require((whole != whole[0]).any(), f"{name}: all vectors are equal")
        again = self.embed(bench, role, len(pool))
        self.compare(whole, again, "run a second time", exact=True)
        self.compare(whole, self.embed(bench, role, 7), "cut into shards of 7")
        self.compare(whole, self.embed(bench, role, 1), "one example at a time")
        order = np.argsort([example.id for example in pool])[::-1]
        moved = Bench(self.folder / f"{role}-moved", [pool[row] for row in order])
        self.compare(whole[order], self.embed(moved, role, 11), "put in another order")
        for option, config in execution_variants(self.config):
            other = replace(self, config=config).embed(bench, role, len(pool))
            self.compare(whole, other, f"with another '{option}'")
        if not self.component.seeded:
            seeded = replace(self, base=replace(self.base, seed=self.base.seed + 1))
            other = seeded.embed(bench, role, len(pool))
            self.compare(whole, other, "with another seed (or declare seeded=True)")
        return int(whole.shape[1])

    def embed(self, bench: Bench, role: Role, size: int, *, plainly: bool = False) -> np.ndarray:
        """Embed the pool in shards through files, as the core does; return float64."""
        model, checkpoints = self.given
        job = bench.job(self.component, self.config, self.base, model, checkpoints=checkpoints)
        part, name = built(self.component, self.config, Embedder), self.component.name
        with tempfile.TemporaryDirectory() as out, errors_of(name):
            rows = []
            with part.open(job, role) as embedder:
                require_methods(name, embedder, ShardEmbedder)
                for number, start, stop, made in shard_by_shard(
                    embedder, embedder.embed, bench, size, plainly=plainly
                ):
                    self.require_array(made)
                    write_vectors(Path(out), number, made, stop - start)
                    rows.append(stop - start)
            vectors = finish_vectors(Path(out), rows)
            return vectors.take(np.arange(len(vectors))).astype(np.float64)

    def require_array(self, made: object) -> None:
        what = f"{self.component.name}: embed() returned {type(made).__name__}, not a numpy array"
        require(isinstance(made, np.ndarray), what)

    def compare(
        self, first: np.ndarray, second: np.ndarray, what: str, *, exact: bool = False
    ) -> None:
        name = self.component.name
        require(first.shape == second.shape, f"{name}: {what}, its vectors have another width")
        distance = np.linalg.norm(first - second, axis=1)
        limit = 0.0 if exact else self.tolerance * np.linalg.norm(first, axis=1).max()
        far = np.flatnonzero(distance > limit)
        require(
            not len(far),
            f"{name}: {what}, {len(far)} of {len(first)} vectors differ, the largest difference is "
            f"{distance.max():.2g}",
        )

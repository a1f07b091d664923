"""The check of a scorer: the score of an example does not depend on other examples."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from selectmoe_core.config import Config
from selectmoe_core.data.examples import Example
from selectmoe_core.data.final_scores import replace_scores
from selectmoe_core.data.scores import ScoreTable, ShardScores, write_part
from selectmoe_core.data.shown import TokenDetail
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Job, Need, Scorer, ShardScorer, TableScorer
from selectmoe_core.testing.components import built
from selectmoe_core.testing.pools import Bench, generated_examples
from selectmoe_core.testing.requirement import errors_of, require, require_methods
from selectmoe_core.testing.trials import execution_variants, given, shard_by_shard

Columns = dict[str, np.ndarray]
SHADED = 3
"""Examples whose tokens are asked for."""
TARGETS = 12
"""Target examples."""


def check_scorer(
    component: Component[Any, Any],
    *,
    options: Mapping[str, object] | None = None,
    examples: Sequence[Example] | None = None,
    model: str | Path | None = None,
    models: Models | None = None,
    job: Job | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Run a scorer on a small pool, shard by shard as the core does, and check the contract.

    Every example gets a finite score or a reason, never both; the order is kept; two runs are
    equal to the last bit; scores, details and features do not depend on how the pool is cut or
    ordered, on the other examples of a shard, on execution-only options, or on the seed unless the
    component declares ``seeded``. A component that declares ``Need.TARGETS`` gets generated target
    examples, and one that declares ``Need.FEATURES`` gets vectors of both.

    Args:
        component: the scorer.
        options: as a recipe would write them.
        examples: the pool, at least two different examples; by default generated ones.
        model: a model's folder or reference, for a scorer that needs one.
        models: the loader; by default the installed plugins' models.
        job: the job with seed, device, dtype and chat format; its inputs are replaced.
        tolerance: the largest accepted difference of two numbers, absolute and relative.

    Raises:
        AssertionError: says what the scorer did, and what the core expects.
    """
    start = given(
        component, Kind.SCORER, options, examples=examples, model=model, models=models, job=job
    )
    with tempfile.TemporaryDirectory() as folder:
        trial = _Trial(component, start.config, start.base, start.model, tolerance, Path(folder))
        if Need.SCORES in component.needs(start.config):
            trial.check_combination(start.pool)
        else:
            trial.check(start.pool)


@dataclass
class _Trial:
    """A scorer and the inputs of its run."""

    component: Component[Any, Any]
    config: Config
    base: Job
    model: ModelRef | None
    tolerance: float
    folder: Path
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def name(self) -> str:
        return self.component.name

    def check(self, pool: list[Example]) -> None:
        bench = self.bench(pool)
        whole = self.score(bench, len(pool), plainly=True)
        self.require_variety(whole["score"])
        self.compare(whole, self.score(bench, len(pool)), "run a second time", exact=True)
        self.compare(whole, self.score(bench, 7), "cut into shards of 7")
        self.compare(whole, self.score(bench, 1), "scored one example at a time")
        order = np.argsort([example.id for example in pool])[::-1]
        moved = self.score(self.bench([pool[row] for row in order]), 11)
        self.compare({k: v[order] for k, v in whole.items()}, moved, "put in another order")
        for name, config in execution_variants(self.config):
            other = replace(self, config=config)
            self.compare(whole, other.score(bench, len(pool)), f"with another '{name}'")
        reseeded = replace(self, base=replace(self.base, seed=self.base.seed + 1))
        self.check_seed(whole["score"], reseeded.score(bench, len(pool))["score"])

    def check_combination(self, pool: list[Example]) -> None:
        """Check a scorer that reads finished tables."""
        bench = self.bench(pool)
        names = list(self.component.scores(self.config)) if self.component.scores else ["a", "b"]
        random = np.random.default_rng(0)
        for name in names:
            of_name = ShardScores(random.normal(size=len(pool)))
            self.write(bench, self.folder / f"of-{name}", 0, 0, len(pool), of_name)
        tables = {name: ScoreTable.open(self.folder / f"of-{name}") for name in names}
        job = self.job(bench, {name: self.folder / f"of-{name}" for name in names})
        one, other = (self.combined(tables, job) for _ in range(2))
        first = self.write(bench, self.folder / "one", 0, 0, len(pool), one)
        second = self.write(bench, self.folder / "two", 0, 0, len(pool), other)
        self.require_variety(first["score"])
        self.compare(first, second, "run a second time", exact=True)

    def combined(self, tables: Mapping[str, ScoreTable], job: Job) -> Any:  # noqa: ANN401
        part = built(self.component, self.config, TableScorer)
        with errors_of(self.name):
            return part.combine(tables, job)

    def bench(self, pool: list[Example]) -> Bench:
        return Bench(self.folder / f"bench-{next(self.numbers)}", pool)

    def job(self, bench: Bench, scores: Mapping[str, Path] | None = None) -> Job:
        given = self.component, self.config, self.base, self.model, scores
        return bench.job(*given, targets=self.targets)

    @cached_property
    def targets(self) -> Bench:
        """Target examples, the same whatever the pool's order is."""
        return self.bench(generated_examples(TARGETS, seed=1))

    def score(self, bench: Bench, size: int, *, plainly: bool = False) -> Columns:
        """Score the pool in shards through files, as the core does."""
        out = bench.folder / f"run-{next(self.numbers)}"
        parts: list[Columns] = []
        part = built(self.component, self.config, Scorer)
        with errors_of(self.name), part.open(self.job(bench)) as scorer:
            require_methods(self.name, scorer, ShardScorer)
            made = shard_by_shard(scorer, scorer.score, bench, size, plainly=plainly)
            parts += [self.write(bench, out, *shard) for shard in made]
            if plainly:
                self.check_tokens(scorer, list(bench.pool.examples(0, SHADED)))
        columns = {
            name: np.concatenate([part.get(name, np.empty(0)) for part in parts])
            for name in parts[0]
        }
        for name, column in columns.items():
            require(len(column) == len(bench.pool), f"{self.name}: not every shard has '{name}'")
        table = ScoreTable.open(out)
        np.testing.assert_array_equal(table.score(), columns["score"])
        return columns | self.finished(part, table)

    def check_tokens(self, scorer: Any, some: list[Example]) -> None:  # noqa: ANN401
        """Check the numbers for tokens of a scorer that has them."""
        details = scorer.tokens(some) if hasattr(scorer, "tokens") else None
        if details is None:
            return
        require(
            len(details) == len(some),
            f"{self.name}: tokens() returned {len(details)} details for {len(some)} examples",
        )
        for detail in details:
            kind = type(detail).__name__
            require(
                isinstance(detail, TokenDetail),
                f"{self.name}: tokens() returned a {kind}, not a TokenDetail",
            )
            require(not detail.problem(), f"{self.name}: tokens(): {detail.problem()}")
            counted = np.asarray(detail.values)[np.asarray(detail.counts, dtype=bool)]
            require(
                np.isfinite(counted).all(),
                f"{self.name}: tokens(): a token that counts for the score has no finite number",
            )

    def finished(self, part: Any, table: ScoreTable) -> Columns:  # noqa: ANN401
        """Return the final scores of a scorer with ``finish``, called twice."""
        if not hasattr(part, "finish"):
            return {}
        with errors_of(self.name):
            finish = part.finish(table)
            score = finish.score
            if score is None:
                return {}
            replace_scores(table, score, finish.skipped)
            again = part.finish(table).score
        same = np.array_equal(score, again, equal_nan=True)
        require(
            same,
            f"{self.name}: a second finish() returns other scores; it must depend only on details",
        )
        return {"score": table.score()}

    def write(
        self, bench: Bench, out: Path, number: int, start: int, stop: int, scores: ShardScores
    ) -> Columns:
        """Check and write one shard's scores; return what must not depend on other examples."""
        require(
            isinstance(scores, ShardScores),
            f"{self.name}: score() returned {type(scores).__name__}, not ShardScores",
        )
        ids = [batch.column("id") for batch in bench.pool.batches(start, stop)]
        names = bench.pool.source_names(start, stop)
        with errors_of(self.name):
            write_part(out, number, pa.chunked_array(ids).combine_chunks(), names, scores)
        self.check_reasons(scores)
        found = {"score": np.asarray(scores.score, dtype=np.float64)}
        found |= {name: np.asarray(detail) for name, detail in scores.details.items()}
        if scores.features is not None:
            found["features"] = np.asarray(scores.features).astype(np.float16)
        return found

    def check_reasons(self, scores: ShardScores) -> None:
        for value, reason in zip(scores.score, scores.skipped or (), strict=False):
            require(
                reason is None or np.isnan(value),
                f"{self.name}: an example is skipped ({reason}) but has the score {value}; it "
                "must be NaN",
            )

    def require_variety(self, score: np.ndarray) -> None:
        scored = score[~np.isnan(score)]
        require(len(scored), f"{self.name}: no example got a score")
        require(scored.min() < scored.max(), f"{self.name}: all scores are equal ({scored[0]})")

    def compare(self, first: Columns, second: Columns, what: str, *, exact: bool = False) -> None:
        require(first.keys() == second.keys(), f"{self.name}: {what}, it returns other details")
        for name, column in first.items():
            close = max(self.tolerance, 2e-3) if name == "features" else self.tolerance
            close = 0.0 if exact else close
            same = _close(column, second[name], close)
            require(
                same.all(),
                f"{self.name}: {what}, '{name}' differs for {int((~same).sum())} of {len(same)} "
                f"examples, the first from {column[~same][:1]} to {second[name][~same][:1]}",
            )

    def check_seed(self, score: np.ndarray, other: np.ndarray) -> None:
        same = _close(score, other, self.tolerance).all()
        if self.component.seeded:
            require(not same, f"{self.name}: it declares seeded=True, but the seed changes nothing")
        else:
            require(same, f"{self.name}: the seed changes its scores; declare seeded=True")


def _close(first: np.ndarray, second: np.ndarray, tolerance: float) -> np.ndarray:
    """Return which rows agree, bool ``[rows]``; NaN agrees with NaN."""
    if first.shape != second.shape:
        return np.zeros(len(first), dtype=bool)
    first, second = first.astype(np.float64), second.astype(np.float64)
    close = np.isclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)
    return np.asarray(close.reshape(len(first), -1).all(axis=1))

"""The check of a selector: equal scores give an equal choice, no matter how they are stored."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from selectmoe_core.config import Config
from selectmoe_core.data.scores import ScoreTable, ShardScores, write_part
from selectmoe_core.data.selection import Selection
from selectmoe_core.data.vectors import finish_vectors, write_vectors
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Job, Selector
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.pools import Bench, generated_examples
from selectmoe_core.testing.requirement import errors_of, require

FEATURE_WIDTH = 8
TASKS = ("task:first", "task:second")
"""Details that are scores for target tasks."""


def check_selector(
    component: Component[Any, Any],
    *,
    options: Mapping[str, object] | None = None,
    rows: int = 200,
    job: Job | None = None,
) -> None:
    """Run a selector on a generated table with ties and skipped rows, and check the contract.

    The table has scores for two target tasks (details ``task:NAME``), and a component that declares
    ``Need.FEATURES`` gets vectors.

    It keeps at least one row, each once, and no skipped row; two runs are equal; the choice does
    not depend on the parts of the table or on the order of its rows (ties are broken by id), nor
    on the seed unless the component declares ``seeded``; a component that declares ``by_rank``
    depends only on the order of the scores.

    Args:
        component: the selector.
        options: as a recipe would write them; they must keep some of ``rows`` rows with scores
            between 0 and 1.
        rows: size of the table.
        job: the job with seed and device; its inputs are replaced.

    Raises:
        AssertionError: says what the selector did, and what the core expects.
    """
    config = checked(component, Kind.SELECTOR, options)
    with tempfile.TemporaryDirectory() as folder:
        _Trial(component, config, job or Job(seed=1), Path(folder)).check(rows)


@dataclass(frozen=True)
class _Drawn:
    """What a generated pool has: scores, features, a score for each target task, vectors."""

    score: np.ndarray
    features: np.ndarray
    tasks: np.ndarray
    vectors: np.ndarray


@dataclass
class _Trial:
    """A selector and the inputs of its run."""

    component: Component[Any, Any]
    config: Config
    base: Job
    folder: Path
    tables: int = 0

    @property
    def name(self) -> str:
        return self.component.name

    def check(self, rows: int) -> None:
        random = np.random.default_rng(0)
        score = random.integers(0, 20, size=rows) / 19  # many ties
        score[random.random(rows) < 0.05] = np.nan
        features = random.normal(size=(rows, FEATURE_WIDTH))
        tasks = random.integers(0, 9, size=(rows, len(TASKS))) / 8
        drawn = _Drawn(score, features, tasks, random.normal(size=(rows, FEATURE_WIDTH)))
        bench = Bench(self.folder / "pool", generated_examples(rows))
        table = self.table(bench, drawn, parts=1)
        chosen = self.select(bench, table, drawn, self.base)
        self.same(chosen, self.select(bench, table, drawn, self.base), "run a second time")
        cut = self.table(bench, drawn, parts=7)
        self.same(chosen, self.select(bench, cut, drawn, self.base), "with the table in 7 parts")
        self.check_order(bench, drawn, chosen)
        if not self.component.seeded:
            other = self.select(bench, table, drawn, replace(self.base, seed=self.base.seed + 1))
            self.same(chosen, other, "with another seed (or declare seeded=True)")
        if self.component.by_rank:
            stretched = replace(drawn, score=np.exp(3 * score) - 2)
            again = self.table(bench, stretched, parts=1)
            found = self.select(bench, again, stretched, self.base)
            self.same(chosen, found, "with scores in the same order (or declare by_rank=False)")

    def check_order(self, bench: Bench, drawn: "_Drawn", chosen: np.ndarray) -> None:
        moved = Bench(self.folder / "moved", bench.examples[::-1])
        turned = _Drawn(*(values[::-1] for values in vars(drawn).values()))
        table = self.table(moved, turned, parts=1)
        found = self.select(moved, table, turned, self.base)
        self.same(
            chosen,
            len(drawn.score) - 1 - found,
            "with the rows in another order (break ties by id)",
        )

    def table(self, bench: Bench, drawn: "_Drawn", parts: int) -> ScoreTable:
        self.tables += 1
        out = bench.folder / f"scores-{self.tables}"
        for number, rows in enumerate(np.array_split(np.arange(len(drawn.score)), parts)):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            ids = [batch.column("id") for batch in bench.pool.batches(start, stop)]
            score = drawn.score[rows]
            reasons = ["cut off" if np.isnan(value) else None for value in score]
            details = {name: drawn.tasks[rows, place] for place, name in enumerate(TASKS)}
            scores = ShardScores(score, reasons, details, drawn.features[rows])
            names = bench.pool.source_names(start, stop)
            write_part(out, number, pa.chunked_array(ids).combine_chunks(), names, scores)
        return ScoreTable.open(out)

    def select(self, bench: Bench, table: ScoreTable, drawn: "_Drawn", base: Job) -> np.ndarray:
        vectors = bench.folder / "embed"
        if not vectors.is_dir():
            half = len(drawn.vectors) // 2
            for number, part in enumerate((drawn.vectors[:half], drawn.vectors[half:])):
                write_vectors(vectors, number, part, len(part))
            finish_vectors(vectors, [half, len(drawn.vectors) - half])
        job = bench.job(self.component, self.config, base, vectors=vectors)
        part = built(self.component, self.config, Selector)
        with errors_of(self.name):
            selection = part.select(table, job)
        require(
            isinstance(selection, Selection),
            f"{self.name}: select() returned {type(selection).__name__}, not a Selection",
        )
        rows = np.asarray(selection.rows)
        self.check_rows(rows, drawn.score)
        for what in ("group", "reason", "cluster"):
            notes = getattr(selection, what)
            require(
                notes is None or len(notes) == len(rows),
                f"{self.name}: '{what}' must have one entry for each kept row",
            )
        return rows

    def check_rows(self, rows: np.ndarray, score: np.ndarray) -> None:
        name = self.name
        require(rows.ndim == 1, f"{name}: rows has the shape {rows.shape}")
        require(
            len(rows), f"{name}: it kept nothing; give check_selector options that keep some rows"
        )
        require(
            np.issubdtype(rows.dtype, np.integer), f"{name}: rows are {rows.dtype}, not integers"
        )
        within = rows.min() >= 0 and rows.max() < len(score)
        require(within, f"{name}: it kept a row outside the table")
        require(len(np.unique(rows)) == len(rows), f"{name}: it kept a row twice")
        require(np.isfinite(score[rows]).all(), f"{name}: it kept a row that was skipped")

    def same(self, first: np.ndarray, second: np.ndarray, what: str) -> None:
        require(np.array_equal(first, second), f"{self.name}: {what}, it selects other rows")

"""Quotas, bands and token budgets, against plain loops over small random inputs."""

import itertools
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from selectmoe_basic.config import BandConfig, TokenBudgetConfig, TopFractionConfig, TopKConfig
from selectmoe_basic.selectors import Band, TokenBudget, TopFraction, TopK
from selectmoe_core import Job, ModelRef, ScoreTable, ShardScores, StageError
from selectmoe_core.data.scores import write_part
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.selecting import Bounds, allot

NAMES = ("ant", "bee", "cat", "dog")


def drawn_table(folder, random, rows=90) -> tuple[ScoreTable, list[dict]]:
    """A table with ties and skipped rows, and its rows as plain values."""
    ids = [random.bytes(16) for _ in range(rows)]
    score = random.integers(0, 12, size=rows).astype(float)
    score[random.random(rows) < 0.1] = np.nan
    sources = [NAMES[n] for n in random.choice(4, p=[0.5, 0.3, 0.15, 0.05], size=rows)]
    reasons = ["cut" if np.isnan(value) else None for value in score]
    column = pa.array(sources).dictionary_encode()
    write_part(folder, 0, pa.array(ids, pa.binary(16)), column, ShardScores(score, reasons))
    plain = [{"row": n, "id": ids[n], "score": score[n], "source": sources[n]} for n in range(rows)]
    return ScoreTable.open(folder), plain


def best(rows):
    scored = [row for row in rows if not np.isnan(row["score"])]
    return sorted(scored, key=lambda row: (-row["score"], row["id"]))


def of_source(rows, name):
    return [row for row in rows if row["source"] == name]


def test_each_source_gives_its_best(tmp_path):
    random = np.random.default_rng()
    for trial in range(12):
        table, rows = drawn_table(tmp_path / str(trial), random)
        ranked = best(rows)
        sizes = {name: len(of_source(ranked, name)) for name in NAMES}
        options = {"per": "source", "quota": "equal", "floor": 1, "ceiling": 12}
        total = 30
        for part in (
            TopK(TopKConfig(k=total, **options)),
            TopFraction(TopFractionConfig(fraction=total / 90, **options)),
        ):
            selection = part.select(table, Job(seed=1))
            found = list(table.sources()[1])
            counts = allot(total, {name: sizes[name] for name in found}, "equal", Bounds(1, 12))
            kept = [
                row["row"]
                for name, count in zip(found, counts.counts, strict=True)
                for row in of_source(ranked, name)[:count]
            ]
            assert selection.rows.tolist() == [r["row"] for r in ranked if r["row"] in set(kept)]
            assert selection.group.to_pylist() == [rows[n]["source"] for n in selection.rows]
            assert selection.warnings == counts.warnings


# --------------------------------------------------------------------------------------- band


@pytest.mark.parametrize("per", ["none", "source"])
def test_bands_share_the_pool_out(tmp_path, per):
    random = np.random.default_rng()
    limits = [0.0, 14.3, 50.0, 99.9, 100.0]
    for trial in range(8):
        table, rows = drawn_table(tmp_path / str(trial), random)
        ranked = best(rows)
        groups = [ranked] if per == "none" else [of_source(ranked, name) for name in NAMES]
        seen = []
        for low, high in itertools.pairwise(limits):
            part = Band(BandConfig(low=low, high=high, per=per))
            found = part.select(table, Job(seed=1)).rows.tolist()
            expected = set()
            for group in groups:
                for place, row in enumerate(group[::-1]):  # the worst first
                    at = Fraction(100 * place, len(group))
                    if Fraction(str(low)) <= at < Fraction(str(high)):
                        expected.add(row["row"])
            assert found == [row["row"] for row in ranked if row["row"] in expected]
            seen += found
        assert sorted(seen) == sorted(row["row"] for row in ranked)


def test_a_band_needs_a_width():
    with pytest.raises(ValidationError, match="is not below 'high'"):
        BandConfig(low=50, high=50)


# ------------------------------------------------------------------------------- token budgets


def job_with(lengths, counted=()) -> Job:
    return Job(
        seed=1,
        inputs=Inputs(model=ModelRef("bundled:none")),
        models=SimpleNamespace(tokenizer=lambda model: model),
        encoded=lambda tokenizer: SimpleNamespace(
            lengths=np.array(lengths), counted=np.array(counted, dtype=np.int32)
        ),
    )


def fitting(rows, lengths, budget):
    """The best rows up to the first that no longer fits."""
    kept, used = [], 0
    for row in rows:
        used += lengths[row["row"]]
        if used > budget:
            break
        kept.append(row["row"])
    return kept


def test_a_budget_equals_adding_up_one_by_one(tmp_path):
    random = np.random.default_rng()
    for trial in range(12):
        table, rows = drawn_table(tmp_path / str(trial), random)
        lengths = random.integers(1, 40, size=len(rows)).tolist()
        budget = int(random.integers(50, 1500))
        ranked = best(rows)
        part = TokenBudget(TokenBudgetConfig(tokens=budget))
        found = part.select(table, job_with(lengths)).rows.tolist()
        assert found == fitting(ranked, lengths, budget)
        names = table.sources()[1]
        quota = {names[0]: 0.5}  # a drawn table need not hold every source
        part = TokenBudget(TokenBudgetConfig(tokens=budget, per="source", quota=quota))
        have = {name: sum(lengths[row["row"]] for row in of_source(ranked, name)) for name in names}
        counts = allot(min(budget, sum(have.values())), have, quota, Bounds(), "tokens")
        expected = [
            row
            for name, tokens in zip(names, counts.counts, strict=True)
            for row in fitting(of_source(ranked, name), lengths, tokens)
        ]
        selection = part.select(table, job_with(lengths))
        assert selection.rows.tolist() == [r["row"] for r in ranked if r["row"] in set(expected)]
        assert selection.warnings == counts.warnings
        assert sum(lengths[row] for row in selection.rows) <= budget


def test_a_budget_of_answers_counts_what_is_learned_from(tmp_path):
    random = np.random.default_rng()
    table, rows = drawn_table(tmp_path, random)
    counted = random.integers(0, 40, size=len(rows)).tolist()
    part = TokenBudget(TokenBudgetConfig(tokens=300, count="answers"))
    found = part.select(table, job_with([1000] * len(rows), counted)).rows.tolist()
    assert found == fitting(best(rows), counted, 300)


def test_a_budget_below_the_best_example_says_so(tmp_path):
    table, rows = drawn_table(tmp_path, np.random.default_rng())
    with pytest.raises(StageError, match="not one example fits into 3 tokens"):
        TokenBudget(TokenBudgetConfig(tokens=3)).select(table, job_with([4] * len(rows)))

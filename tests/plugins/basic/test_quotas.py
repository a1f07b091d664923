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


# ------------------------------------------------------------------------------------- quotas


def plain_allotment(total, sizes, weights, low, high):
    """The shares ``level * weight`` within bounds whose sum is the total, in whole numbers."""
    below, above = Fraction(0), Fraction(10**9)
    names = sorted(sizes)

    def shares(level):
        return {n: min(max(level * weights[n], Fraction(low[n])), Fraction(high[n])) for n in names}

    for _ in range(120):
        middle = (below + above) / 2
        if sum(shares(middle).values()) < total:
            below = middle
        else:
            above = middle
    found = {name: share.limit_denominator(10**6) for name, share in shares(above).items()}
    counts = {name: int(share) for name, share in found.items()}
    order = sorted(names, key=lambda name: (counts[name] - found[name], name))
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


@pytest.mark.parametrize("quota", ["proportional", "equal", "shares"])
def test_an_allotment_equals_a_search_for_the_level(quota):
    random = np.random.default_rng()
    for _ in range(150):
        sizes = dict(zip(NAMES, random.integers(1, 60, size=4).tolist(), strict=True))
        bounds = Bounds(int(random.integers(0, 5)), int(random.integers(5, 60)))
        low = {name: min(bounds.floor, size) for name, size in sizes.items()}
        high = {name: min(bounds.ceiling, size) for name, size in sizes.items()}
        total = int(random.integers(sum(low.values()), sum(high.values()) + 1))
        weights = {name: Fraction(size) for name, size in sizes.items()}
        given = quota
        if quota == "equal":
            weights = dict.fromkeys(NAMES, Fraction(1))
        if quota == "shares":
            given = {"bee": 0.5, "dog": 0.1}
            rest = sizes["ant"] + sizes["cat"]
            weights = {name: Fraction(4, 10) * sizes[name] / rest for name in ("ant", "cat")}
            weights |= {"bee": Fraction(1, 2), "dog": Fraction(1, 10)}
        found = allot(total, sizes, given, bounds)
        counts = dict(zip(sizes, found.counts, strict=True))
        assert counts == plain_allotment(total, sizes, weights, low, high)
        short = {name for name in NAMES if any(text.startswith(name) for text in found.warnings)}
        exact = {name: total * weights[name] / sum(weights.values()) for name in NAMES}
        assert {n for n in NAMES if sizes[n] < int(exact[n])} <= short
        assert short <= {n for n in NAMES if sizes[n] < exact[n] + 1}


@pytest.mark.parametrize(
    ("total", "sizes", "expected"),
    [
        (10, [100, 100], [5, 5]),
        (7, [100, 100], [4, 3]),  # equal remainders: the first by name
        (10, [53, 24, 23], [5, 3, 2]),  # 5.3, 2.4, 2.3
        (3, [1, 1, 1], [1, 1, 1]),
        (100, [1, 99], [1, 99]),
        (0, [4, 5], [0, 0]),
        (0, [0, 0], [0, 0]),
        (5, [0, 10], [0, 5]),
    ],
)
def test_proportional_is_the_largest_remainder(total, sizes, expected):
    named = dict(zip(NAMES, sizes, strict=False))
    assert allot(total, named, "proportional", Bounds()).counts == tuple(expected)


def test_the_order_of_sources_does_not_matter():
    sizes = {"b": 5, "a": 5, "c": 5}
    assert dict(zip(sizes, allot(4, sizes, "equal", Bounds()).counts, strict=True)) == {
        "b": 1, "a": 2, "c": 1
    }  # fmt: skip


def test_what_a_short_source_cannot_give_is_reported_and_goes_to_the_others():
    found = allot(100, {"ant": 300, "bee": 10, "cat": 300}, {"bee": 0.5}, Bounds())
    assert found.counts == (45, 10, 45)
    assert found.warnings == (
        "bee has 10 of the 50 examples of its quota; the other sources give the rest",
    )
    # Sources with a share of nothing give where those with one are used up.
    found = allot(100, {"ant": 300, "bee": 10, "cat": 300}, {"bee": 1.0}, Bounds())
    assert found.counts == (45, 10, 45)
    found = allot(100, {"ant": 300, "bee": 300}, "equal", Bounds(ceiling=20), "tokens")
    assert found.counts == (20, 20)
    assert found.warnings == ("the sources can give 40 of the 100 tokens to keep",)


def test_quotas_that_cannot_be_met_are_mistakes():
    with pytest.raises(StageError, match="'be', which is not in the pool") as error:
        allot(5, {"bee": 9}, {"be": 0.5}, Bounds())
    assert "bee" in error.value.hint
    with pytest.raises(StageError, match="floor = 4 asks for 8 examples of 2 sources, and 5"):
        allot(5, {"ant": 9, "bee": 9}, "equal", Bounds(floor=4))
    for options, what in (
        ({"quota": "equal"}, 'need per = "source"'),
        ({"per": "source", "quota": {"a": 0.7, "b": 0.4}}, "add up to more than 1"),
        ({"per": "source", "floor": 4, "ceiling": 3}, "above 'ceiling'"),
        ({"per": "source", "quota": "even"}, "quota"),
    ):
        with pytest.raises(ValidationError, match=what):
            TopKConfig(**options)
    assert TopKConfig(per="source", quota={"a": 0.1, "b": 0.2, "c": 0.7}).shared_out


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


def job_with(lengths) -> Job:
    return Job(
        seed=1,
        inputs=Inputs(model=ModelRef("bundled:none")),
        models=SimpleNamespace(tokenizer=lambda model: model),
        encoded=lambda tokenizer: SimpleNamespace(lengths=np.array(lengths)),
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


def test_a_budget_below_the_best_example_says_so(tmp_path):
    table, rows = drawn_table(tmp_path, np.random.default_rng())
    with pytest.raises(StageError, match="not one example fits into 3 tokens"):
        TokenBudget(TokenBudgetConfig(tokens=3)).select(table, job_with([4] * len(rows)))

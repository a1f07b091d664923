"""The tables of the benchmark of strategies: costs, sources, lengths and the overlap of pairs."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from strategies import all_strategies, parse, write_recipe  # noqa: E402
from strategies_table import answer_of, jaccard, markdown  # noqa: E402
from targeted_arms import RECIPES, strategies  # noqa: E402

from selectmoe_core.plan.plan import make_plan  # noqa: E402
from selectmoe_core.plugin.manager import load_plugins  # noqa: E402
from selectmoe_core.plugin.registry import Registry  # noqa: E402
from selectmoe_core.recipe.recipe import read_recipe  # noqa: E402


def found(rows, sources, seconds, languages=()):
    return {
        "rows": set(rows),
        "sources": sources,
        "pool": {"a": 30, "b": 10},
        "seconds": seconds,
        "flops": 2e12 if seconds else None,
        "mean_length": 12.5,
        "median_length": 11.0,
        "languages": dict(languages),
    }


def test_the_tables_say_what_the_selections_hold():
    text = markdown(
        {
            "random": found(range(4), {"a": 3, "b": 1}, {}),
            "rds": found(range(2, 6), {"a": 4}, {"embed": 40.0, "score": 2.0}, {"en": 3, "de": 1}),
        },
        ["less"],
    )
    assert "| `rds` | 42 s (embed 40, score 2) | 2.0e+12 | 12 | 11 | 25.0% |" in text
    assert "| the pool | 75% | 25% |" in text
    assert "| `rds` | 100% | 0% |" in text
    assert "| `rds` | .33 |" in text
    assert text.endswith("Not run: less.\n")


def test_overlaps_and_lengths_are_counted_plainly():
    assert jaccard({1, 2, 3}, {3, 4}) == pytest.approx(1 / 4)
    turns = [("user", "abc"), ("assistant", "de"), ("user", "f"), ("assistant", "ghi")]
    assert answer_of([{"role": role, "content": text} for role, text in turns]) == 5


def test_every_strategy_plans_until_its_selection(tmp_path, monkeypatch):
    monkeypatch.setenv("SELECTMOE_DATA", str(tmp_path))
    for source in ("cot", "dolly", "flan_v2", "oasst1", "gpteacher", "self_instruct"):
        file = tmp_path / f"less/train/processed/{source}/{source}_data.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("")
    chosen: Namespace = parse(["--data", str(tmp_path), "--out", str(tmp_path), "--tiny"])
    (tmp_path / "data" / "eval").mkdir(parents=True)
    (tmp_path / "data" / "targets").mkdir()
    for task in chosen.targets:
        (tmp_path / "data" / "targets" / f"{task}.jsonl").write_text("")
    arms = all_strategies(chosen, tmp_path / "data" / "targets")
    assert set(strategies("m", tmp_path, ["sciq"])) <= set(arms)
    assert {"random", "length", "perplexity", "token-ifd", "dynamics"} <= set(arms)
    registry = Registry(load_plugins())
    for name, tables in arms.items():
        path = write_recipe(chosen, name, tables)
        plan = make_plan(read_recipe(path, (), RECIPES), registry, tmp_path / "o", until="select")
        assert {"select", "filter:leak", "filter:language"} <= set(plan.nodes), name

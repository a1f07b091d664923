"""A row that cannot be used stops the stage that reads it; the hint names that stage's table."""

import pytest
from conftest import write_rows

from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.recipe.recipe import PoolOptions
from selectmoe_core.store import Store

HEAD = 'format = 1\nname = "fake"\n'
POOL = '[pool]\nuse = "jsonl"\npath = "pool.jsonl"\n'
SCORE = '[score]\nuse = "bm25"\n'
TARGETS = '[targets]\nuse = "jsonl"\npath = "broken.jsonl"\n'
TRAIN = '[train]\nuse = "fake-train"\nmodel = "./base"\n'
BROKEN = POOL.replace("pool.jsonl", "broken.jsonl")


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (BROKEN, "[pool]"),
        (POOL + TARGETS + SCORE, "[targets]"),
        (TRAIN + 'data = "broken.jsonl"\n', "[train.data]"),
    ],
)
def test_the_hint_about_a_broken_row_works_in_the_table_that_it_names(project, text, table):
    rows = [{"instruction": f"question {n}", "output": "answer"} for n in range(3)]
    del rows[1]["output"]
    write_rows(project.folder / "broken.jsonl", rows)
    project.recipe.write_text(HEAD + text)

    said = project.run()

    assert said.code == 1
    assert "broken.jsonl:2: 'output' is missing" in said.err
    assert f'set {table} on_reject = "skip"' in said.err

    text = text.replace('data = "broken.jsonl"', '[train.data]\npath = "broken.jsonl"')
    assert f"{table}\n" in text
    project.recipe.write_text(HEAD + text.replace(f"{table}\n", f'{table}\non_reject = "skip"\n'))
    assert project.run().code == 0


@pytest.mark.parametrize("on_reject", ["stop", "skip"])
def test_targets_that_cannot_be_rendered_are_left_out_as_their_own_table_says(tmp_path, on_reject):
    def node(key, inputs, says="stop"):
        own = PoolOptions(use="jsonl", on_reject=says)
        stage = key.partition(":")[0]
        return Node(key, stage, None, None, own, inputs, None, 0, ("selected",), f"[{stage}]")

    nodes = [
        node("pool", {}),
        node("targets", {}, on_reject),
        node("embed", {"pool": "pool"}),
        node("embed:targets", {"targets": "targets"}),
    ]
    plan = Plan(None, {one.key: one for one in nodes}, Store(tmp_path))

    assert plan.skips(plan.nodes["embed:targets"]) == (on_reject == "skip")
    assert not plan.skips(plan.nodes["embed"])

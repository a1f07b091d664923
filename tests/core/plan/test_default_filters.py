"""The filter that every evaluated selection has: there by default, switched off in one line."""

import json

import pyarrow.parquet as pq
import pytest
from conftest import ROWS, rows_of, write_rows

WITH_LEAK = ("~filter",)
"""The recipe of fakes switches the filter off."""
QUESTION = "which of these nine letters is the last letter of the word that was asked for"


@pytest.fixture
def leaking(project):
    """A pool of which two rows hold a question of the evaluation."""
    rows = rows_of(ROWS)
    for number in (5, 9):
        rows[number]["messages"][0]["content"] = f"{number}: {QUESTION.upper()}?"
    write_rows(project.folder / "pool.jsonl", rows)
    return project


def asks(text):
    return f'evaluate.asks=["{text}"]'


def selected(project):
    path = project.runs()[-1] / "artifacts" / "select" / "selected_data.jsonl"
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_it_is_there_in_every_arm_and_the_plan_says_so(project):
    plan = project.plan(*WITH_LEAK)
    reads = {node["key"]: set(node["reads"]) for node in plan["nodes"]}
    assert "filter:leak" in reads["select"] & reads["select@random"]
    assert reads["filter:leak"] == {"pool", "questions"}
    said = project.call("plan", "recipe.toml", *WITH_LEAK)
    assert "by default: filter:leak (filter.leak.use=none switches it off)" in said.out
    until_select = {
        key: digest
        for key, digest in project.digests(*WITH_LEAK).items()
        if not key.startswith(("train", "evaluate"))
    }
    assert project.digests(*WITH_LEAK, "--until", "select") == until_select
    assert set(project.digests(*WITH_LEAK, "--until", "filter")) == {
        "pool", "questions", "filter:leak",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "there", "why"),
    [
        ((), [], 'switched off by use = "none"'),
        (("~filter", "~evaluate", "~compare"), [], None),
        (("~filter", "--until", "score"), [], None),
        (("filter.leak.use=fake-filter",), ["filter:leak"], None),
        (("~filter.leak", "filter.mine.use=leak"), ["filter:mine"], None),
        (("~filter", "evaluate.use=fake-silent-eval"), [], "does not give the questions"),
        (("~filter", 'evaluate.web=["example.org"]'), [], "a change of example.org would not be"),
    ],
)
def test_who_writes_the_table_decides(project, change, there, why):
    plan = project.plan(*change)
    keys = [node["key"] for node in plan["nodes"]]
    assert [key for key in keys if key.startswith("filter")] == there
    without = plan["not_needed"].get("filter:leak")
    assert (why in without) if why else (without is None)
    if why:
        said = project.call("plan", "recipe.toml", *change)
        assert "not made: filter:leak" in " ".join(said.out.split())


def test_options_beside_none_are_a_mistake(project):
    said = project.call("plan", "recipe.toml", "filter.leak.ngram=8")
    assert said.code == 2
    assert "[filter.leak]: 'ngram' has no effect with use = \"none\"" in said.err


def test_rows_that_hold_a_question_are_left_out_and_listed(leaking):
    said = leaking.run(*WITH_LEAK, asks(QUESTION), "select.fraction=1")
    assert said.code == 0, said.err
    warning = f"2 of {ROWS} rows hold questions of the evaluation and are left out"
    assert warning in said.err
    assert "(filter.leak.use=none keeps them)" in said.err
    folder = leaking.runs()[-1]
    out = pq.read_table(folder / "artifacts" / "select" / "left_out.parquet").to_pylist()
    reason = "holds a part of a question of letters"
    assert [(row["filter"], row["reason"]) for row in out] == [("leak", reason)] * 2
    kept = selected(leaking)
    assert len(kept) == ROWS - 2
    assert not {row["id"].hex() for row in out} & set(kept)
    page = (folder / "report.html").read_text()
    assert warning in page
    assert warning in (folder / "report.md").read_text()
    assert f"leak: {reason}" in page
    for row in (6, 10):
        assert f"pool.jsonl:{row}" in page
    assert 'use = "leak"' in (folder / "recipe.toml").read_text()


def test_where_nothing_is_found_the_selection_is_the_same(leaking):
    assert leaking.run().code == 0
    before = selected(leaking)
    assert leaking.run(*WITH_LEAK, asks("nine words that no row of the pool has at all")).code == 0
    assert selected(leaking) == before


def test_a_filter_that_stands_by_default_needs_no_options(manager):
    from selectmoe_core import Component, Config, Need
    from selectmoe_core.plugin.component_check import component_problems

    class Needs(Config):
        """Needs a word."""

        word: str
        """The word."""

    made = Component("mine", Needs, lambda _: None, needs=lambda _: frozenset({Need.POOL}))
    assert not list(component_problems(made))
    made = Component("mine", Needs, lambda _: None, by_default="evaluated")
    assert "word has none" in " ".join(component_problems(made))
    made = Component("mine", Config, lambda _: None, by_default=True)
    assert "by_default must be one of" in " ".join(component_problems(made))

"""Executors: where processes run changes no result, and a shard that fails is told from others."""

import json

import pytest
from conftest import LEFT_OUT
from fake_recipe import HEAD

from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import Artifact
from selectmoe_core.testing import check_executor

RECIPE = f"""\
{HEAD}
[score]
use = "fake-child"
shard_examples = 8

[select]
use = "top-fraction"
fraction = 0.25
"""
ELSEWHERE = "executor.use=fake-executor"


@pytest.fixture
def small(project):
    project.recipe.write_text(RECIPE)
    return project


def selected(project, outputs="outputs"):
    (path,) = project.folder.glob(f"{outputs}/store/select-*/selected_data.jsonl")
    return path.read_bytes()


def score_of(project, outputs="outputs"):
    (folder,) = (path for path in project.folder.glob(f"{outputs}/store/score-*") if path.is_dir())
    return folder


def test_the_core_of_executors_is_in_the_kit(tmp_path):
    entry = Registry(load_plugins(LEFT_OUT[1::2])).get(Kind.EXECUTOR, "local", where="here")
    check_executor(entry.component, folder=tmp_path)


def test_shards_made_elsewhere_give_the_same_bytes_and_digests(small):
    said = small.run(ELSEWHERE)
    assert said.code == 0, said.err
    assert "executor fake-executor: inside" in said.err
    calls = small.calls()
    order = ["executor open auto 0", "map score", "score 4", "score 0", "executor finish"]
    places = [calls.index(call) for call in (*order, "executor close")]
    assert places == sorted(places)
    assert "gang the check before the first stage 1" in calls
    elsewhere = selected(small)
    details = Artifact.load(score_of(small)).details
    assert details["executor"] == "fake-executor"
    said = small.run("--executor", "local")
    assert said.code == 0, said.err
    assert not [call for call in small.calls() if call.startswith("score")]  # all is reused
    small.run("--outputs", "here")
    assert selected(small, "here") == elsewhere
    assert Artifact.load(score_of(small, "here")).details["executor"] == "local"
    assert [path.name for path in score_of(small, "here").iterdir()] == [
        path.name for path in score_of(small).iterdir()
    ]


def test_a_stage_that_is_no_map_is_a_gang(small):
    small.edit('[score]\nuse = "fake-child"\nshard_examples = 8', '[score]\nuse = "length"')
    small.recipe.write_text(
        small.recipe.read_text() + '\n[train]\nuse = "fake-slow-train"\nmodel = "./base"\n'
    )
    said = small.run(ELSEWHERE)
    assert said.code == 0, said.err
    calls = small.calls()
    assert "gang train 1" in calls
    assert not [call for call in calls if call.startswith("map")]  # length uses no torch


def test_a_shard_that_fails_is_named_and_all_others_are_kept(small):
    small.tell("fail-score-3")
    said = small.run(ELSEWHERE, "executor.attempts=3")
    assert said.code == 1
    assert "1 shard of 8 examples could not be scored: rows 24 to 31" in said.err
    assert "pool.jsonl:25 to" in said.err
    assert "pool.jsonl:32) after 3 tries" in said.err
    assert "told to fail at score-3" in said.err
    assert "skip_failed_shards = true" in said.err
    assert small.calls().count("score 3") == 3
    folder = score_of(small)
    lines = (folder / "failed_shards.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["shard"] for row in rows] == [3] * 8
    assert [row["where"].rpartition(":")[2] for row in rows] == [str(n) for n in range(25, 33)]
    small.untell("fail-score-3")
    assert small.run(ELSEWHERE).code == 0
    assert [call for call in small.calls() if call.startswith("score ")] == ["score 3"]
    small.run("--outputs", "here")
    assert selected(small) == selected(small, "here")


def test_the_recipe_may_go_on_without_a_shard_that_fails(small):
    small.tell("fail-score-3")
    skip = (ELSEWHERE, "executor.skip_failed_shards=true")
    said = small.run(*skip)
    assert said.code == 1
    assert "more than max_skipped = 1.0%: 8 x its shard could not be scored" in said.err
    said = small.run(*skip, "score.max_skipped=0.3")
    assert said.code == 0, said.err
    assert "8 examples were left out: its shard could not be scored" in said.out
    assert small.calls().count("score 3") == 4  # the stage that ended was tried again
    facts = Artifact.load(score_of(small)).facts
    assert facts["skipped"] == {"its shard could not be scored": 8}
    lines = [json.loads(line) for line in selected(small).splitlines()]
    assert len(lines) == 10
    places = {line["meta"]["where"].rpartition(":")[2] for line in lines}
    assert len(places) == 10
    assert not places & set(map(str, range(25, 33)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("executor.use=rya", "there is no executor named 'rya'"),
        ("executor.attempts=3", "it names no executor"),
        ("executor=local", "it names no executor"),
    ],
)
def test_a_wrong_executor_is_an_error_of_the_recipe(small, change, what):
    said = small.run(change)
    assert said.code == 2
    assert what in said.err
    assert not small.calls()


def test_an_unknown_option_of_an_executor_is_an_error(small):
    said = small.run("--executor", "local", "--ray-address", "auto")
    assert said.code == 2
    assert "[executor] local: unknown option 'address'" in said.err


@pytest.mark.parametrize("option", [("--num-processes", "2"), ("--parallel", "2")])
def test_options_of_processes_here_do_not_fit_another_place(small, option):
    said = small.run(ELSEWHERE, *option)
    assert said.code == 2
    assert f"does not go with {option[0]}" in said.err


def test_the_check_runs_where_the_stages_will(small):
    small.tell("fail-check")
    said = small.run(ELSEWHERE)
    assert said.code == 2
    assert "the check says no" in said.err
    assert "Hint: listen to it" in said.err


def test_an_error_of_an_executor_names_its_plugin(small):
    small.tell("fail-executor")
    said = small.run(ELSEWHERE)
    assert said.code == 1
    assert "[executor] fake-executor: open() failed" in said.err


def test_the_plan_and_the_schema_know_executors(small, cli):
    assert small.digests(ELSEWHERE) == small.digests()
    said = cli("plan", "recipe.toml", ELSEWHERE)
    assert "executor fake-executor for each of score" in said.out
    assert "num-processes" not in said.out
    schema = json.loads(cli("recipes", "schema").out)
    names = {table["title"] for table in schema["properties"]["executor"]["anyOf"]}
    assert "local" in names

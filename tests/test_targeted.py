"""The benchmark of targeted selection: what is held back, its arms, its table, its time limit."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import targeted  # noqa: E402
from targeted_arms import possible, strategies  # noqa: E402
from targeted_data import TASKS, hold_back  # noqa: E402
from targeted_table import markdown  # noqa: E402

from selectmoe_core.plugin.manager import load_plugins  # noqa: E402
from selectmoe_core.plugin.registry import Registry  # noqa: E402

QUESTIONS = 30
SOURCES = ("cot", "dolly", "flan_v2", "oasst1", "gpteacher", "self_instruct")


@pytest.fixture
def data(tmp_path):
    """A small folder of the benchmark's layout; ARC-Easy asks one question twice."""
    folder = tmp_path / "data"
    (folder / "eval").mkdir(parents=True)
    for task, name in TASKS.items():
        rows = [
            {
                "id": f"{task}-{n}",
                "question": f"{task} {n}?",
                "choices": ["a", f"b{n}"],
                "answer": 1,
            }
            for n in range(QUESTIONS)
        ]
        rows[7]["question"] = rows[3]["question"]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "eval" / name).write_text(text)
    for source in SOURCES:
        path = folder / f"less/train/processed/{source}/{source}_data.jsonl"
        path.parent.mkdir(parents=True)
        turns = [{"role": "user", "content": source}, {"role": "assistant", "content": "Yes."}]
        path.write_text(json.dumps({"dataset": source, "messages": turns}) + "\n")
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_target_is_asked_and_nothing_else_is_lost(data, tmp_path):
    hold_back(data, tmp_path / "out", ["arc_easy", "sciq"], 5, 0)
    targets = rows_of(tmp_path / "out/targets/arc_easy.jsonl")
    asked = rows_of(tmp_path / "out/eval/arc_easy.jsonl")
    assert len(targets) == 5
    held = {row["messages"][0]["content"].removeprefix("Question: ") for row in targets}
    assert not held & {row["question"] for row in asked}
    every = {row["question"] for row in rows_of(data / "eval/arc_easy.jsonl")}
    assert held | {row["question"] for row in asked} == every
    numbers = [row["id"].partition("-")[2] for row in targets]
    assert [row["messages"][1]["content"] for row in targets] == [f"b{n}" for n in numbers]
    assert len(rows_of(tmp_path / "out/eval/piqa.jsonl")) == QUESTIONS
    assert not (tmp_path / "out/targets/piqa.jsonl").exists()


def test_more_targets_contain_the_fewer_and_a_limit_cuts_what_is_asked(data, tmp_path):
    for count in (3, 6):
        hold_back(data, tmp_path / str(count), ["sciq"], count, 10)
    few, many = (
        [row["id"] for row in rows_of(tmp_path / f"{count}/targets/sciq.jsonl")] for count in (3, 6)
    )
    assert many[:3] == few
    assert len(rows_of(tmp_path / "3/eval/sciq.jsonl")) == 10


def test_a_strategy_without_its_plugin_is_left_out(manager):
    from selectmoe_basic import plugin

    manager.register(plugin)
    wanted = strategies("model", Path("targets"), ["sciq"])
    assert set(possible(wanted, Registry(manager))) == {"contrastive"}
    assert set(possible(wanted, Registry(load_plugins()))) == set(wanted)


def test_every_strategy_plans_and_arms_keep_their_order(data, tmp_path):
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--tiny"]
    chosen = targeted._chosen(arguments)
    chosen.out.mkdir()
    hold_back(data, chosen.out / "data", chosen.targets, chosen.held_back, chosen.questions)
    registry = Registry(load_plugins())
    arms = strategies(chosen.model, chosen.out / "data/targets", chosen.targets)
    planned = targeted._plan(chosen, registry, arms, chosen.seeds)
    labels = [arm.label for arm in planned.arms]
    assert labels == ["base", "random", "length", *arms]
    assert [arm.label for arm in planned.arms if len(arm.trials) == 2] == labels[1:]
    stages = {node.stage for node in planned.plan.nodes.values()}
    assert stages >= {"targets", "embed", "warmup", "evaluate"}
    assert not targeted._compare_finished(chosen, registry, planned, arms)


@pytest.mark.parametrize("count", [650, 1200])
def test_no_limit_of_the_recipe_cuts_the_questions(data, tmp_path, count):
    rows = [
        {"id": f"piqa-{n}", "question": f"piqa {n}?", "choices": ["a", "b"], "answer": 0}
        for n in range(count)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "eval" / TASKS["piqa"]).write_text(text)
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--questions", "0"]
    chosen = targeted._chosen([*arguments, "--model", "bundled:nano-llama"])
    chosen.out.mkdir()
    hold_back(data, chosen.out / "data", chosen.targets, 5, chosen.questions)
    arms = {"contrastive": {}}
    planned = targeted._plan(chosen, Registry(load_plugins()), arms, [1])
    configs = [node.config for node in planned.plan.nodes.values() if node.stage == "evaluate"]
    assert configs
    assert {config.limit for config in configs} == {count}


def test_the_table_has_scores_differences_and_costs_in_order():
    difference = {"value": 0.031, "low": 0.02, "high": 0.042}
    result = {"value": 0.523, "difference": difference}
    parts = {"warm-up": 1.0, "embedding": 2.0, "scoring": 3.0, "selection": 4.0, "training": 5.0}
    arms = [
        {"label": "random", "seeds": 3, "kept": 960, "flops": dict.fromkeys(parts, 1e12),
         "device_seconds": dict(sorted(parts.items())),
         "results": {"arc": {"value": 0.492, "difference": None}}},
        {"label": "rds", "seeds": 3, "kept": 960, "flops": dict.fromkeys(parts),
         "device_seconds": dict(sorted(parts.items())), "results": {"arc": result}},
    ]  # fmt: skip
    document = {
        "tasks": [{"name": "arc", "questions": 2276}], "judged_tasks": ["arc"], "arms": arms,
        "verdicts": ["rds beats random"], "notes": ["no leak"],
    }  # fmt: skip
    lines = markdown(document).splitlines()
    assert lines[0] == "| selection | seeds | examples | arc (2,276 questions) |"
    assert lines[2:4] == [
        "| random | 3 | 960 | 49.2 |",
        "| rds | 3 | 960 | 52.3 (**+3.1**, +2.0 to +4.2) |",
    ]
    assert "| selection | warm-up | embedding | scoring | selection | training | FLOPs |" in lines
    assert lines[-2] == "| random | 1 s | 2 s | 3 s | 4 s | 5 s | 5.0e+12 |"

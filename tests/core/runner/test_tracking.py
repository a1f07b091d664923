"""What observers and trackers learn of a run: points, times, the result, and a failure."""

import os

import pytest

from selectmoe_core.runner.tracking import tracked_name

TRACKED = "trackers.fake-tracker.color=blue"


def tracked(project):
    return [c.removeprefix("tracker ") for c in project.calls() if c.startswith("tracker ")]


def test_a_tracker_follows_a_run_from_its_start_to_its_report(project):
    assert project.run(TRACKED).code == 0
    start, *logged, end = tracked(project)
    assert start == "start fake 0.25 blue"
    assert "log warmup 1 loss" in logged
    assert "log train/random 2 loss" in logged
    assert "log score 0 seconds device_seconds" in logged
    assert logged.index("log warmup 2 loss") < logged.index("log warmup 0 seconds device_seconds")
    assert end.startswith("end [] 2 [base/letters=0.50 random/letters=")
    assert end.endswith("[report.html report.md report.json]")


def test_a_tracker_changes_no_digest_and_makes_nothing_again(project):
    before = project.digests()
    assert project.digests(TRACKED) == before
    project.run()
    project.calls()
    assert project.run(TRACKED).code == 0
    start, end = tracked(project)
    assert start.startswith("start")
    assert "selected/letters=" in end


def test_a_tracker_and_observers_learn_of_a_failure(project):
    project.tell("fail-evaluate")
    assert project.run(TRACKED).code == 1
    calls = project.calls()
    [failed] = [call for call in calls if call.startswith("run failed")]
    assert failed.startswith("run failed True evaluate@base: ") or "told to fail" in failed
    [end] = [call for call in calls if call.startswith("tracker end")]
    assert "told to fail at evaluate" in end
    assert "run finished" not in " ".join(calls)


def test_points_arrive_in_the_main_process_also_from_a_child(project):
    project.tell("observed")
    said = project.run("train.use=fake-alone-train", "--until", "train", "compare.baselines=[]")
    assert said.code == 0, said.err
    observed = [call for call in project.calls() if call.startswith("observed train ")]
    assert observed == [
        f"observed train {os.getpid()} 2.0",
        f"observed train {os.getpid()} 1.0",
    ]


def test_points_arrive_from_several_stages_at_once(project):
    project.tell("observed")
    assert project.run("--parallel", "3", "--until", "train").code == 0
    observed = {call for call in project.calls() if call.startswith("observed")}
    nodes = ("warmup", "train", "train@random")
    assert observed == {
        f"observed {node} {os.getpid()} {loss}" for node in nodes for loss in (2.0, 1.0)
    }


@pytest.mark.parametrize(
    ("override", "says", "hint"),
    [
        (
            "trackers.fake-missing.color=red",
            "needs the package 'nowhere_at_all'",
            "pip install now",
        ),
        ("trackers.fake-trackre.color=red", "no tracker named 'fake-trackre'", "fake-tracker"),
        ("trackers.fake-tracker.colour=red", "unknown option 'colour'", "color"),
        ("trackers.fake-tracker.color=green", "color", "red"),
        ("trackers=fake-tracker", "each tracker has a table of its own", "[trackers.tensorboard]"),
    ],
)
def test_what_is_wrong_with_a_tracker_is_said_before_the_first_stage(project, override, says, hint):
    said = project.run(override)
    assert said.code == 2
    assert says in said.err
    assert hint in said.err
    assert project.calls() == []
    assert project.call("plan", "recipe.toml", override).code == 2


def test_a_tracker_that_cannot_start_ends_the_run_before_the_first_stage(project):
    project.tell("fail-tracker")
    said = project.run(TRACKED)
    assert said.code == 1
    assert "told to fail at tracker" in said.err
    assert "convert" not in project.calls()


def test_a_tracker_that_fails_later_is_reported_once_and_changes_nothing(project):
    project.tell("fail-tracker-log")
    said = project.run(TRACKED)
    assert said.code == 0
    assert said.err.count("selectmoe_metrics failed") == 1
    assert "told to fail at tracker-log" in said.err


def test_a_comparison_is_tracked_too(project):
    said = project.call("compare", "recipe.toml", TRACKED, "seed=[1]")
    assert said.code == 0, said.err
    found = tracked(project)
    assert any(line.startswith("log train/random 2 loss") for line in found)
    assert found[-1].endswith("[compare.html compare.md compare.json]")


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("train@router:1", "train/router-1"),
        ("score:ifd", "score-ifd"),
        ("evaluate@source-balanced-random k=5:2", "evaluate/source-balanced-random-k-5-2"),
        ("select@grüße", "select/gr-e"),
    ],
)
def test_names_are_those_that_every_tracker_takes(node, name):
    assert tracked_name(node) == name

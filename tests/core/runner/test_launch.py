"""Stages in processes of their own: whatever end they come to, the run says it in one message."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import LEFT_OUT
from waiting import wait_for

CHILD = ("score.use=fake-child", "score.reads_model=true", "--until", "score")


def pids(project):
    return {line.split()[1] for line in project.calls() if line.startswith("pid ")}


def test_a_stage_that_computes_with_torch_has_a_process_of_its_own(project):
    said = project.run(*CHILD, "--threads", "1")
    assert said.code == 0, said.err
    calls = project.calls()
    mine = str(os.getpid())
    [checked] = {line.split()[1] for line in calls if line.startswith("check")}
    [scored] = {line.split()[1] for line in calls if line.startswith("pid")}
    assert len({mine, checked, scored}) == 3
    assert {line.split()[-1] for line in calls if line.startswith("pid")} == {"1"}
    assert calls.index(f"check {checked}") < calls.index("convert")
    assert "reused" in project.run(*CHILD, "--threads", "1").err
    assert not pids(project)


def test_a_child_gives_what_a_stage_in_place_gives(project):
    project.run(*CHILD)
    project.run("--until", "score")
    facts = [
        json.loads(path.read_text())["facts"]
        for path in project.store.glob("score-*/artifact.json")
    ]
    assert len(facts) == 2
    assert facts[0] == facts[1]


@pytest.mark.parametrize(
    ("told", "code", "message", "hint"),
    [
        ("error", 1, "Error: score: the child says no", "Hint: ask again"),
        ("disk", 1, "No space left on device: somewhere", "Hint: free space"),
        ("memory", 1, "CUDA out of memory. Tried to allocate 2 GiB.", "Hint: lower batch in ["),
        ("kill", 1, "Error: score: its process was ended by SIGKILL (out of memory?)", "Hint: run"),
        ("check", 2, "the check before the first stage: the check says no", "Hint: listen to it"),
    ],
)
def test_the_end_of_a_child_is_told_once_and_gone_on_from(project, told, code, message, hint):
    project.tell(f"fail-{told}")
    said = project.run(*CHILD)
    written = said.err
    assert said.code == code, written
    assert message in written
    assert hint in written
    assert written.count("Error: ") == 1
    assert "Traceback" not in written
    project.untell(f"fail-{told}")
    assert project.run(*CHILD).code == 0


def test_a_failing_check_stops_before_the_first_stage(project):
    project.tell("fail-check")
    assert project.run(*CHILD).code == 2
    assert not list(project.store.glob("*/artifact.json"))
    assert "convert" not in project.calls()


def test_a_bug_in_a_child_keeps_its_traceback_on_stderr_and_in_the_log(project):
    project.tell("fail-score-1")
    said = project.run(*CHILD)
    written = said.err
    assert said.code == 1
    assert "RuntimeError: told to fail at score-1" in written
    assert written.count("Traceback") == 1
    assert "an error of the plugin 'fake'" in written
    [folder] = project.runs()
    assert "told to fail at score-1" in (folder / "run.log").read_text()
    project.untell("fail-score-1")
    project.calls()
    assert project.run(*CHILD).code == 0
    assert [c for c in project.calls() if c.startswith("score ")] == [
        "score 1",
        "score 2",
        "score 3",
        "score 4",
    ]


def test_an_interrupted_child_ends_the_run_with_130(project):
    project.tell("fail-interrupt")
    assert project.run(*CHILD).code == 130
    project.untell("fail-interrupt")
    assert project.run(*CHILD).code == 0


def test_a_child_leaves_out_the_same_plugins(project):
    said = project.call("--disable-plugin", "router", "run", "recipe.toml", *CHILD)
    assert said.code == 0, said.err


def test_a_resume_in_other_threads_stops(project):
    project.tell("fail-score-1")
    project.run(*CHILD, "--threads", "1")
    project.untell("fail-score-1")
    said = project.run(*CHILD, "--threads", "2")
    assert said.code == 1
    assert "Error: score was begun with threads 1 and cannot go on with 2" in said.err


def test_without_a_number_of_threads_a_stage_goes_on_as_it_was_begun(project):
    project.tell("fail-score-1")
    project.run(*CHILD, "--threads", "3")
    project.untell("fail-score-1")
    assert project.run(*CHILD, "--parallel", "2").code == 0
    [manifest] = project.store.glob("score-*/artifact.json")
    assert json.loads(manifest.read_text())["details"]["threads"] == 3


# ------------------------------------------------------------------------ ended from outside


def begun(project, *arguments):
    """Start a run in a process of its own, as a shell does."""
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml"]
    return subprocess.Popen(
        [*command, *CHILD, *arguments],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children_at(run, stage):
    """The processes below a run that have a stage's file on their command line."""
    found = []
    for child in psutil.Process(run.pid).children(recursive=True):
        try:
            if any(f"work-{stage}.json" in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_leaves_no_orphan_that_goes_on(project, processes, seed):
    """A kill just after a stage's process was started comes before anything is imported there."""
    project.tell("slow", "0.5")
    moment = random.Random().random() if seed else 0.0
    run = begun(project, "--num-processes", processes, "--threads", "1")
    children = wait_for(lambda: children_at(run, "score"), run)
    time.sleep(moment)
    children = children_at(run, "score") or children
    run.kill()
    run.communicate()
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left
    project.calls()
    time.sleep(1)
    assert not project.calls()
    assert not list(project.store.glob("score-*/artifact.json"))


def first_shard_is_there(project):
    return list(project.store.glob("score-*/scores/part-*.parquet"))


@pytest.mark.slow
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_run_and_its_processes_and_the_next_goes_on(project, number, code):
    project.tell("slow", "0.5")
    run = begun(project)
    wait_for(lambda: first_shard_is_there(project), run)
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    _, written = run.communicate(timeout=120)
    assert run.returncode == code, written
    assert written.count("Interrupted. Finished work is kept") == 1
    assert "Traceback" not in written
    assert not psutil.wait_procs(children, timeout=60)[1]
    done = {int(part.stem[5:]) for part in first_shard_is_there(project)}
    project.untell("slow")
    project.calls()
    assert project.run(*CHILD).code == 0
    again = {int(line.split()[1]) for line in project.calls() if line.startswith("score ")}
    assert again == set(range(5)) - done

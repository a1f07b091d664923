"""Workers: they come and go while a stage is made; the result is that of one process."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import LEFT_OUT, rows_of, write_rows
from waiting import wait_for

from selectmoe_core.stages.context import CLAIMS

ONLY = ("compare.baselines=[]", "score.reads_model=false", "score.shard_examples=4")
SCORE = (*ONLY, "--until", "select")
EMBED = (
    "embed.use=fake-embed",
    "embed.shard_examples=4",
    "score.use=fake-near",
    "score.targets=false",
    "compare.baselines=[]",
)
PATIENCE = 900


def started(project, command, *arguments):
    """Start a command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, command, "recipe.toml", *arguments],
        cwd=project.folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def worker(project, *arguments):
    return started(project, "worker", *arguments)


def when_made(project, number):
    """Wait until so many shards are made."""
    wait_for(lambda: len(list(project.store.glob("score-*/scores/part-*.parquet"))) >= number)


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def selected(project, outputs="outputs"):
    [path] = project.folder.glob(f"{outputs}/store/select-*/selected_data.jsonl")
    return path.read_bytes()


def shards(calls):
    """The shards that were begun, in order, each as often as it was."""
    return sorted(int(line.split()[1]) for line in calls if re.fullmatch(r"score \d+", line))


@pytest.fixture
def alone(project):
    """What one process selects; all that the score reads is made in the outputs folder too."""
    write_rows(project.folder / "pool.jsonl", rows_of(120))
    assert project.run(*SCORE, "--outputs", "alone").code == 0
    assert project.run(*SCORE, "--until", "pool").code == 0
    project.calls()
    return selected(project, "alone")


def test_a_worker_makes_all_shards_and_the_run_finishes_the_stage(project, alone):
    said = project.call("worker", "recipe.toml", *ONLY, "--stage", "score")
    assert said.code == 0, said.err
    assert "score: all 30 shards are made; `selectmoe run" in said.err
    assert not list(project.store.glob("score-*/artifact.json"))
    assert shards(project.calls()) == list(range(30))
    said = project.run(*SCORE)
    assert said.code == 0, said.err
    assert shards(project.calls()) == []
    assert selected(project) == alone
    assert not list(project.store.glob(f"score-*/{CLAIMS}"))
    again = project.call("worker", "recipe.toml", *ONLY, "--stage", "score")
    assert again.code == 0
    assert "score: finished already" in again.err


def test_embeddings_are_made_by_workers_too(project):
    write_rows(project.folder / "pool.jsonl", rows_of(40))
    until = ("--until", "select")
    assert project.run(*EMBED, *until, "--outputs", "alone").code == 0
    assert project.run(*EMBED, "--until", "pool").code == 0
    project.calls()
    said = project.call("worker", "recipe.toml", *EMBED, "--stage", "embed")
    assert said.code == 0, said.err
    assert "embed: all 10 shards are made" in said.err
    assert [call for call in project.calls() if call.startswith("embed ")] == [
        "embed pool",
        *(f"embed {number}" for number in range(10)),
    ]
    assert project.run(*EMBED, *until).code == 0
    assert "embed 3" not in project.calls()
    assert selected(project) == selected(project, "alone")


def test_a_worker_that_comes_too_early_says_what_is_missing(project):
    said = project.call("worker", "recipe.toml", "score.reads_model=true", "--stage", "score")
    assert said.code == 1
    assert "Error: score reads what is not made yet: pool, warmup" in said.err
    assert "`selectmoe run recipe.toml score.reads_model=true --until warmup` first" in said.err
    assert "--wait" in said.err


def test_a_worker_waits_for_what_is_not_made_and_gives_up_at_its_limit(project):
    begun = time.monotonic()
    said = project.call(
        "worker", "recipe.toml", "--stage", "score", "--wait", "--limit-minutes", "0.05"
    )
    assert said.code == 0, said.err
    assert time.monotonic() - begun < 30
    assert "score: waiting for pool, warmup, which `selectmoe run recipe.toml` makes" in said.err
    assert "score: the time is up; not made yet: pool, warmup" in said.err


def test_a_worker_leaves_at_its_limit(project, alone):
    project.tell("slow", "0.3")
    said = project.call(
        "worker", "recipe.toml", *ONLY, "--stage", "score", "--limit-minutes", "0.03"
    )
    assert said.code == 0, said.err
    [left] = re.findall(r"the time is up, (\d+) of 30 shards are left", said.err)
    assert 20 < int(left) < 30
    assert len(shards(project.calls())) == 30 - int(left)
    project.untell("slow")
    assert project.run(*SCORE).code == 0
    assert len(shards(project.calls())) == int(left)
    assert selected(project) == alone


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (
            ("--stage", "embed"),
            "--stage embed: this run has no such stage",
            "workers can join: score",
        ),
        (
            ("score.use=fake-child", "score.reads=unknown", "--stage", "train"),
            "Invalid value for '--stage': 'train' is not one of 'embed', 'score'",
            "",
        ),
    ],
)
def test_what_a_worker_cannot_make_is_an_error_of_the_command_line(project, arguments, error, hint):
    said = project.call("worker", "recipe.toml", *arguments)
    assert said.code == 2
    assert error in said.err
    assert hint in said.err
    assert "Traceback" not in said.err


def test_another_number_of_threads_is_an_error_that_names_the_option(project):
    child = ("score.use=fake-child", "score.shard_examples=4")
    assert project.run(*child, "--until", "pool").code == 0
    project.tell("fail-score-2")
    assert project.call("worker", "recipe.toml", *child, "--stage", "score", "--threads", "1").code
    said = project.call("worker", "recipe.toml", *child, "--stage", "score", "--threads", "2")
    assert said.code == 1
    assert "score was begun with threads 1 and cannot go on with 2" in said.err
    assert "--threads 1" in said.err


# ------------------------------------------------------------------------ several at the same time


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_worker_leaves_is_made_by_the_run_at_once(project, alone, number):
    project.tell("slow", "1")
    process = worker(project, *ONLY, "--stage", "score")
    try:
        when_made(project, 2)
        process.send_signal(number)
        code, _, err = ended(process)
    finally:
        process.kill()
    assert code == (-9 if number == signal.SIGKILL else 143)
    assert "Traceback" not in err
    before = len(list(project.store.glob("score-*/scores/part-*.parquet")))
    project.untell("slow")
    project.calls()
    begun = time.monotonic()
    assert project.run(*SCORE).code == 0
    assert time.monotonic() - begun < 60  # a lease would take 90 s
    assert len(shards(project.calls())) == 30 - before
    assert selected(project) == alone


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_many_workers_some_of_them_killed_make_what_one_process_makes(project, alone, seed):
    """Six workers; two are killed at random moments, two others come later; a run joins them."""
    chance = random.Random(seed)
    project.tell("slow", "2")
    arguments = (*ONLY, "--stage", "score", "--wait")
    moments = [chance.randint(1, 9), chance.randint(10, 20)]
    crowd, victims = [worker(project, *arguments) for _ in range(6)], []
    try:
        for moment in moments:
            when_made(project, moment)
            time.sleep(chance.uniform(0, 2))
            living = [process for process in crowd if process.poll() is None]
            victims.append(chance.choice(living))
            victims[-1].kill()
            crowd.append(worker(project, *arguments))
        crowd.append(started(project, "run", *SCORE))
        for process in crowd:
            code, _, err = ended(process)
            assert code == (-signal.SIGKILL if process in victims else 0), err
    finally:
        for process in crowd:
            process.kill()
    made = shards(project.calls())
    # What a killed worker had not finished is made again, and nothing else: the shard at work, and
    # two that it had passed to the thread that writes.
    assert sorted(set(made)) == list(range(30))
    assert len(made) <= 30 + 3 * len(victims)
    assert selected(project) == alone


# -------------------------------------------------------------------------------- as documented


def test_the_script_for_slurm_runs(project, alone):
    """The shell body of the documented script, with Slurm's variables and without Slurm."""
    from conftest import ROOT

    text = (ROOT / "docs" / "distributed.md").read_text()
    [script] = re.findall(r"```text\n(#!/bin/bash\n#SBATCH.*?)```", text, flags=re.S)
    assert "--array" in script
    body = script.replace("selectmoe worker", f"{sys.executable} -m selectmoe_core worker")
    body = body.replace("recipe.toml", shlex.join(["recipe.toml", *ONLY]))
    variables = {
        "SLURM_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "64",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NUM_TASKS": "1",
    }
    done = subprocess.run(
        ["bash", "-eu", "-c", body],
        cwd=project.folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "score: all 30 shards are made" in done.stderr
    assert project.run(*SCORE).code == 0
    assert selected(project) == alone

"""Stages in several processes: whoever starts them, the result is one process's, told once."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import LEFT_OUT
from ports import held_port

from selectmoe_core.errors import RecipeError, StageError
from selectmoe_core.runner.external_launch import Team, _of_slurm, join_team
from selectmoe_core.runner.failures import BUG, Failure, cause
from selectmoe_core.runner.launch import Launch, launch_of
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.processes import INTERRUPTED
from selectmoe_core.runtime.shared_folder import SharedFolder
from selectmoe_core.stages.context import CLAIMS
from selectmoe_core.stages.scoring.claims import Claims, forget_claims, of_all

CHILD = (
    "convert.use=fake-child-convert",
    "warmup.use=fake-alone-train",
    "score.use=fake-child",
    "score.reads_model=true",
    "--threads", "1",
    "--until", "score",
)  # fmt: skip
ALONE = ("convert", "alone True", "train 20")
"""What is done once, by one process, whoever launched how many; ``alone`` is its world."""
SHARDS = 5


@pytest.fixture
def slow(project):
    """A shard takes long enough for every process to get one."""
    project.tell("slow", "0.4")
    return project


def parts(project):
    """The shards that are there, with their rows."""
    found = sorted(project.store.glob("score-*/scores/part-*.parquet"))
    return {int(path.stem[5:]): pq.read_table(path).to_pylist() for path in found}


def workers(calls):
    return {line.split()[1] for line in calls if line.startswith("pid ")}


def scored(calls):
    return sorted(int(line.split()[1]) for line in calls if line.startswith("score "))


def assert_done_once(calls):
    assert {call: calls.count(call) for call in ALONE} == dict.fromkeys(ALONE, 1)


def processes_of(project):
    """How many processes made each stage."""
    manifests = [json.loads(path.read_text()) for path in project.store.glob("*/artifact.json")]
    return {made["stage"]: made["details"]["processes"] for made in manifests}


def one_process(project):
    """What one process scores."""
    assert project.run(*CHILD, "score.use=fake-score", "--outputs", "alone").code == 0
    project.calls()
    found = sorted(project.folder.glob("alone/store/score-*/scores/part-*.parquet"))
    return {int(path.stem[5:]): pq.read_table(path).to_pylist() for path in found}


# -------------------------------------------------------------------- started by selectmoe itself


@pytest.mark.slow
def test_two_processes_score_like_one(slow):
    alone = one_process(slow)
    said = slow.run(*CHILD, "--num-processes", "2")
    assert said.code == 0, said.err
    calls = slow.calls()
    assert len(workers(calls)) == 2
    assert_done_once(calls)
    assert processes_of(slow) == {"pool": 1, "convert": 1, "warmup": 1, "score": 2}
    assert scored(calls) == list(range(SHARDS))
    assert parts(slow) == alone
    assert said.err.count("score  ") == 2  # begun and done, each once
    assert not list(slow.store.glob(f"score-*/{CLAIMS}"))


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_the_next_takes_what_is_missing(slow):
    slow.tell("fail-kill-1", str(slow.store))
    said = slow.run(*CHILD, "--num-processes", "2")
    assert said.code == 1
    [error] = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    assert error.startswith("Error: score: process 2 of 2 on ")
    assert error.endswith("was ended by SIGKILL (out of memory?)")
    assert "Traceback" not in said.err
    assert "ChildFailed" not in said.err
    done = parts(slow)
    assert 0 < len(done) < SHARDS
    slow.untell("fail-kill-1")
    slow.calls()
    assert slow.run(*CHILD, "--num-processes", "2").code == 0
    assert scored(slow.calls()) == sorted(set(range(SHARDS)) - set(done))
    assert {number: rows for number, rows in parts(slow).items() if number in done} == done
    assert parts(slow) == one_process(slow)


# ---------------------------------------------------------------------- started by another launcher


def finished(command, project, **variables):
    """Run a command in the project's folder, as a user would in a shell."""
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    return subprocess.run(
        command,
        env=environment | variables,
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


RUN = ("-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml", *CHILD)


@pytest.mark.slow
def test_under_accelerate_launch_one_process_tells_and_all_take_part(slow):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    slow.tell("fail-error-1", str(slow.store))
    said = finished([*launch, *RUN], slow)
    assert said.returncode
    assert said.stderr.count("Error: score: process 1 says no") == 1, said.stderr
    assert said.stderr.count("Hint: ask again") == 1
    assert said.stderr.count("pool              jsonl              ...") == 1
    done = parts(slow)
    slow.untell("fail-error-1")
    slow.calls()
    said = finished([*launch, *RUN], slow)
    assert said.returncode == 0, said.stderr
    calls = slow.calls()
    assert scored(calls) == sorted(set(range(SHARDS)) - set(done))
    assert said.stdout.count("Report: ") == 1
    assert parts(slow) == one_process(slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "processes"),
    [
        (("torch.distributed.run", "--nproc-per-node", "2"), 2),
        (("accelerate.commands.launch", "--num_processes", "2", "--multi_gpu"), 2),
        # accelerate takes one process on a CPU unless it is told --multi_gpu.
        (("accelerate.commands.launch", "--num_processes", "2", "--cpu"), 1),
    ],
    ids=["torchrun", "accelerate-multi", "accelerate-cpu"],
)
def test_a_launcher_can_begin_with_an_empty_outputs_folder(slow, launcher, processes):
    said = finished([sys.executable, "-m", *launcher, *RUN], slow)
    assert said.returncode == 0, said.stderr
    calls = slow.calls()
    assert_done_once(calls)
    assert len(workers(calls)) == processes
    assert processes_of(slow) == {"pool": 1, "convert": 1, "warmup": 1, "score": processes}
    assert said.stdout.count("Report: ") == 1
    assert parts(slow) == one_process(slow)


def srun_variables(rank):
    """What Slurm's srun sets for each task of a step."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
    }


def torch_variables(rank):
    """What torch's own rendezvous by environment reads, as a job script may set it by hand."""
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("variables", [srun_variables, torch_variables])
def test_processes_that_only_variables_describe_find_one_another(slow, variables):
    with held_port() as port:
        tasks = [
            subprocess.Popen(
                [sys.executable, *RUN],
                env=os.environ | {"MASTER_PORT": port} | variables(rank),
                cwd=slow.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in ("0", "1")
        ]
        (out, err), (silent_out, silent_err) = (task.communicate(timeout=600) for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0], err + silent_err
    calls = slow.calls()
    assert len(workers(calls)) == 2
    assert_done_once(calls)
    assert "Report: " in out
    assert not silent_out
    assert not silent_err
    assert parts(slow) == one_process(slow)


def test_srun_gives_rank_size_and_the_first_host(monkeypatch):
    step = {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "2",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "MASTER_PORT": "1234",
    }
    found = _of_slurm(step | {"MASTER_ADDR": "gpu07"})
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("5", "8", "1")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("gpu07", "1234")
    del step["MASTER_PORT"]
    named = _of_slurm(step | {"SLURM_STEP_NODELIST": "gpu07"})
    assert named["MASTER_ADDR"] == "gpu07"
    assert 15000 <= int(named["MASTER_PORT"]) < 30000
    other = _of_slurm(step | {"SLURM_STEP_NODELIST": "gpu07", "SLURM_STEP_ID": "3"})
    assert other["MASTER_PORT"] != named["MASTER_PORT"]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StageError, match=r"the first host of gpu\[07-08\]") as caught:
        _of_slurm(step)
    assert "MASTER_ADDR" in caught.value.hint


def test_scontrol_names_the_first_host(tmp_path, monkeypatch):
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames gpu[07-08]" ] && echo gpu07 gpu08\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    step = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    step |= {"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "1"}
    assert _of_slurm(step)["MASTER_ADDR"] == "gpu07"


def test_a_batch_script_alone_is_no_launch(monkeypatch):
    """It knows how many tasks were asked for, but nobody has started them."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert join_team() is None


def test_a_launch_of_one_is_none_and_its_variables_are_gone(monkeypatch):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    assert join_team() is None
    assert not {"WORLD_SIZE", "RANK", "TORCHELASTIC_RUN_ID"} & set(os.environ)


# -------------------------------------------------------------------------------- how many, and how


def test_the_configuration_of_accelerate_says_how_many(tmp_path):
    config = tmp_path / "fsdp.yaml"
    config.write_text("distributed_type: FSDP\nnum_processes: 4\n")
    whole = launch_of(None, [str(config)], None)
    assert (whole.processes, whole.config("score")) == (4, config)
    part = launch_of(2, [f"warmup={config}"], None)
    assert (part.processes, part.config("warmup"), part.config("train")) == (2, config, None)
    assert launch_of(None, [], None) == Launch(0)
    for one_process in ("convert", "pool", "select"):
        assert whole.config(one_process) is None
    for wrong in (f"warm={config}", f"convert={config}", "nowhere.yaml"):
        with pytest.raises(RecipeError, match=f"--accelerate-config {wrong}"):
            launch_of(2, [wrong], None)
    config.write_text("distributed_type: FSDP\n")
    with pytest.raises(RecipeError, match="does not say num_processes"):
        launch_of(None, [str(config)], None)


@pytest.mark.parametrize(
    ("asked", "device", "gpus", "processes"),
    [
        (None, "cuda", 8, 8),
        (None, "cuda", 1, 1),
        (None, "cpu", 0, 1),
        (None, "cpu", 8, 1),  # --device cpu on a host with GPUs
        (None, "cuda:1", 8, 1),  # one GPU was asked for by its number
        (1, "cuda", 8, 1),
        (2, "cpu", 0, 2),
    ],
)
def test_by_default_there_is_a_process_for_each_gpu(asked, device, gpus, processes):
    assert launch_of(asked, [], None).on(device, gpus).processes == processes


def test_run_and_plan_say_how_many_processes(project, monkeypatch):
    monkeypatch.setattr("selectmoe_core.runtime.hardware.visible_gpus", lambda: 3)
    planned = project.call("plan", "recipe.toml", *CHILD[:3], "--until", "score")
    assert planned.code == 0, planned.err
    assert "3 processes for each of score (visible GPUs: 3)" in " ".join(planned.out.split())
    assert project.plan(*CHILD[:3])["processes"] == 3
    assert project.run(*CHILD).code == 0
    [run] = project.runs()
    log = (run / "run.log").read_text()
    assert "1 process(es) for each of: score (cpu, no visible GPUs)" in log


def test_a_process_needs_a_gpu_of_its_own():
    Launch(4).check(4)
    with pytest.raises(
        RecipeError, match="5 processes were asked for, but this host has 4 visible GPUs"
    ):
        Launch(5).check(4)
    # Slurm may show each of eight processes the one GPU that is its own.
    Launch(8, team=Team(World(0, 8), "here", None, sharing=1)).check(1)


def test_two_launchers_are_one_too_many(tmp_path):
    team = Team(World(0, 4), "here", None)
    assert launch_of(None, [], team).processes == 4
    assert launch_of(4, [], team).processes == 4
    for processes, named in ((2, []), (None, ["fsdp.yaml"])):
        with pytest.raises(RecipeError, match="another launcher has started 4 processes"):
            launch_of(processes, named, team)


# ----------------------------------------------------------------------------------- claims, causes


def test_every_shard_is_claimed_once_whoever_asks(tmp_path):
    cuts = [(number, 8 * number, 8 * number + 8) for number in range(20)]
    made = set()
    place = SharedFolder(tmp_path / CLAIMS)
    with Claims(place) as one, Claims(place) as other:
        first, second = one.spread(cuts, made.__contains__), other.spread(cuts, made.__contains__)
        taken = [next(first), next(second), next(second), next(first)]
        for cut in second:
            taken.append(cut)
            made.update(number for number, _, _ in taken)
        taken += first
    assert sorted(taken) == cuts
    forget_claims(place, tmp_path)
    assert not (tmp_path / CLAIMS).exists()


def test_the_bar_moves_by_what_all_have_written():
    made, moved = {3}, []
    advance = of_all(moved.append, [(3, 0, 8), (4, 8, 16), (5, 16, 19)], made.__contains__)
    advance(1)
    made |= {4, 5}
    advance(1)
    advance(1)
    assert moved == [8, 8, 3]


@pytest.mark.parametrize(
    ("failures", "rank"),
    [
        ([Failure(BUG, 0, "lost connection", at=1.0), Failure(-9, 1, at=1.4)], 1),
        ([Failure(BUG, 0, "lost connection", at=1.0), Failure(1, 1, "told", at=1.2)], 1),
        ([Failure(-15, 0, at=1.0), Failure(BUG, 1, "bug", at=2.0)], 1),
        ([Failure(BUG, 0, "bug", at=2.0), Failure(BUG, 1, "bug", at=1.0)], 1),
        ([Failure(1, 0, "told", at=2.0), Failure(2, 1, "told", at=1.0)], 1),
        ([Failure(BUG, 0, "bug", at=1.0), Failure(-6, 1, at=2.0)], 0),
        ([Failure(-9, 0, at=1.0), Failure(INTERRUPTED, 1, at=2.0)], 1),
    ],
)
def test_what_failed_first_is_told_and_not_what_followed_from_it(failures, rank):
    assert cause(failures).rank == rank
    assert cause(reversed(failures)).rank == rank


def test_a_failure_says_which_process_and_where():
    failure = Failure(-9, 6, host="gpu08")
    assert Failure.load(failure.text()) == failure
    told = str(failure.error("score", "score", 16))
    assert told == "score: process 7 of 16 on gpu08 was ended by SIGKILL (out of memory?)"

"""Several stages at the same time: the same results, spread over the GPUs, one error at the end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
from conftest import LEFT_OUT
from waiting import has, wait_for

from selectmoe_core.errors import RecipeError
from selectmoe_core.runner.crew import Crew, check_parallel, gpus_to_spread
from selectmoe_core.runner.launch import Launch
from selectmoe_core.runner.schedule import Schedule
from selectmoe_core.runner.watch import Watch
from selectmoe_core.runtime.events import NewLines, SentProgress, send

# ------------------------------------------------------------------------------------ schedule


@dataclass(frozen=True)
class Step:
    key: str
    inputs: dict
    digest: str
    stage: str = "score"


@dataclass(frozen=True)
class Steps:
    nodes: dict


def steps(**reads):
    """A plan: what each node reads; a node's digest is its name."""
    nodes = {key: Step(key, {name: name for name in names}, key) for key, names in reads.items()}
    return Steps(nodes)


def order(schedule, at_once):
    """The nodes in the rounds in which they would be started, all of a round ending together."""
    rounds = []
    while schedule.waiting:
        started = schedule.ready()[:at_once]
        for node in started:
            schedule.start(node)
        for node in started:
            schedule.finish(node)
        rounds.append([node.key for node in started])
    return rounds


def test_the_plans_order_is_kept_where_one_follows_the_other():
    plan = steps(base=[], pool=[], short=["pool"], warmup=["pool"], score=["warmup"])
    found = order(Schedule(plan, longest_first=False), 1)
    assert found == [["base"], ["pool"], ["short"], ["warmup"], ["score"]]


def test_what_makes_selections_goes_first_and_arms_in_their_order():
    plan = steps(
        base=[], pool=[], select=["pool"], train=["select"], evaluate=["train"],
        warmup=["pool"], score=["warmup"], own_select=["score"], own_train=["own_select"],
        own_evaluate=["own_train"],
    )  # fmt: skip
    found = order(Schedule(plan, longest_first=True), 2)
    assert found == [
        ["pool", "base"], ["warmup", "select"], ["score", "train"], ["evaluate", "own_select"],
        ["own_train"], ["own_evaluate"],
    ]  # fmt: skip


def test_a_node_under_two_keys_is_given_out_once_at_a_time():
    plan = steps(one=[], other=[])
    plan.nodes["other"] = replace(plan.nodes["other"], digest="one")
    schedule = Schedule(plan, longest_first=True)
    first, second = schedule.ready()
    schedule.start(first)
    assert schedule.ready() == []
    schedule.finish(first)
    assert schedule.ready() == [second]


# ------------------------------------------------------------------------------------ GPUs


def test_gpus_are_named_as_the_environment_names_them(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_to_spread("cuda", 3) == ["0", "1", "2"]
    assert gpus_to_spread("cuda:1", 3) == []
    assert gpus_to_spread("cpu", 0) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f,5,-1")
    assert gpus_to_spread("cuda", 2) == ["GPU-8f", "5"]


def test_each_node_gets_the_gpu_that_fewest_use(tmp_path, monkeypatch):
    """Processes in the place of nodes write which GPU they see, and end when they are let."""
    from selectmoe_core.runner import crew as module

    (tmp_path / "work").mkdir()
    code = (
        "import os, pathlib, sys, time\n"
        "gate = pathlib.Path(sys.argv[1])\n"
        "gate.with_suffix('.gpu').write_text(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\n"
        "while not gate.exists(): time.sleep(0.01)\n"
    )

    def started(spec, folder, launch, gpu, printed):
        environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}
        command = [sys.executable, "-c", code, str(tmp_path / spec.key)]
        return module.Child(subprocess.Popen(command, env=environment), spec, tmp_path)

    @dataclass(frozen=True)
    class Spec:
        key: str
        device: str = "cuda"
        events: None = None

    monkeypatch.setattr(module, "start", started)
    crew = Crew(4, ["0", "1"], tmp_path, Launch(1), lambda spec, printed: Watch(spec, None, None))
    with crew.at_work():
        for key in "abcd":
            crew.start(Spec(key))
        assert crew.full
        wait_for(lambda: len(list(tmp_path.glob("*.gpu"))) == 4)
        for key in "ac":  # both on the first GPU
            (tmp_path / key).touch()
        ended = []
        while len(ended) < 2:
            ended += [child.spec.key for child in crew.wait()]
        assert sorted(ended) == ["a", "c"]
        crew.start(Spec("e"))
        crew.start(Spec("f", device="cpu"))
        wait_for(lambda: len(list(tmp_path.glob("*.gpu"))) == 6)
        for key in "bdef":
            (tmp_path / key).touch()
        while crew.nodes:
            list(crew.wait())
    seen = {path.stem: path.read_text() for path in tmp_path.glob("*.gpu")}
    seen_by_f = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    assert seen == {"a": "0", "b": "1", "c": "0", "d": "1", "e": "0", "f": seen_by_f}


@pytest.mark.parametrize("launch", [Launch(2), Launch(configs={"": "file"})])
def test_several_stages_of_several_processes_each_are_refused(launch):
    assert check_parallel(1, launch) is launch
    with pytest.raises(RecipeError, match="--parallel executes stages of one process each"):
        check_parallel(2, launch)


# ------------------------------------------------------------------------------------ events


def test_lines_come_once_and_whole(tmp_path):
    lines = NewLines(tmp_path / "file")
    assert list(lines) == []
    with (tmp_path / "file").open("w") as file:
        file.write("one\ntw")
        file.flush()
        assert list(lines) == ["one"]
        assert list(lines) == []
        file.write("o\nthree\n")
        file.flush()
        assert list(lines) == ["two", "three"]


class Shown:
    """A progress that keeps what it was told."""

    def __init__(self):
        self.bars = {}
        self.open = 0

    def task(self, label, total, unit="examples", done=0):
        self.bars[label] = [total, unit, done]
        return self

    def __enter__(self):
        self.open += 1
        return self.bars[max(self.bars)].append

    def __exit__(self, *_):
        self.open -= 1


def test_bars_and_points_of_a_process_arrive(tmp_path):
    @dataclass(frozen=True)
    class Spec:
        key: str = "train@random:1"
        events: object = tmp_path / "events"

    shown, points = Shown(), []
    watch = Watch(Spec(), lambda *point: points.append(point), shown)
    with SentProgress(tmp_path / "events").task("fine-tuning", 20, "steps", 4) as advance:
        watch.look()
        advance(3)
        assert shown.open == 1
        send(tmp_path / "events", {"step": 7, "metrics": {"loss": 0.5}})
    watch.look()
    assert shown.bars == {"train@random:1: fine-tuning": [20, "steps", 4, 3]}
    assert shown.open == 0
    assert points == [(Spec(), 7, {"loss": 0.5})]


def test_the_bar_of_a_process_that_died_is_closed(tmp_path):
    @dataclass(frozen=True)
    class Spec:
        key: str = "score"
        events: object = tmp_path / "events"

    shown = Shown()
    send(tmp_path / "events", {"bar": 0, "label": "x", "total": 2, "unit": "rows", "done": 0})
    with (tmp_path / "events").open("a") as file:
        file.write('{"bar": 0, "adva')
    watch = Watch(Spec(), lambda *_: None, shown)
    watch.end()
    assert shown.open == 0


# ------------------------------------------------------------------------------------ whole runs


def answered(project):
    """The results of each evaluation of the last run."""
    folder = project.runs()[-1] / "artifacts"
    return {
        path.name: json.loads((path / "artifact.json").read_text())["facts"]
        for path in folder.iterdir()
        if path.name.startswith(("evaluate", "select"))
    }


def test_several_at_a_time_give_what_one_after_the_other_gives(project):
    said = project.run()
    assert said.code == 0, said.err
    alone = answered(project)
    calls = [call for call in project.calls() if not call.startswith("metrics")]
    together = project.run("--outputs", "others", "--parallel", "3")
    assert together.code == 0, together.err
    made = [call for call in project.calls() if not call.startswith("metrics")]
    assert sorted(made) == sorted(calls)
    [folder] = project.folder.glob("others/fake/*/*")
    for name, facts in alone.items():
        path = folder / "artifacts" / name / "artifact.json"
        assert json.loads(path.read_text())["facts"] == facts
    assert together.out.splitlines()[:-1] == said.out.splitlines()[:-1]


def test_stages_do_run_at_the_same_time(project):
    """The conversion and the evaluation of the base model wait for each other."""
    project.tell("meet", "2")
    said = project.run("--parallel", "3")
    assert said.code == 0, said.err


def test_a_failure_waits_for_what_runs_and_is_the_one_error(project):
    project.tell("fail-evaluate")
    said = project.run("--parallel", "3")
    assert said.code == 1
    assert said.err.count("\nError: ") == 1
    assert "told to fail at evaluate" in said.err
    calls = project.calls()
    # What ran beside it was finished; nothing was started afterwards.
    assert calls.count("convert") == 1
    assert "finished convert" in calls
    assert not [call for call in calls if call.startswith("train")]
    project.untell("fail-evaluate")
    assert project.run("--parallel", "3").code == 0
    assert project.calls().count("convert") == 0


def test_an_interrupt_ends_all_that_run(project):
    project.tell("slow", "100")
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml"]
    process = subprocess.Popen(
        [*command, "--parallel", "3", "-q"], cwd=project.folder, stderr=subprocess.PIPE
    )
    calls = project.control / "calls"
    wait_for(lambda: has(calls, "convert"), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM  # no stage has ended by itself
    time.sleep(0.5)
    before = calls.read_text()
    time.sleep(1)
    assert calls.read_text() == before


def test_two_runs_on_one_store_share_the_work(project):
    """Neither waits while there is something else to do, and nothing is made twice."""
    project.tell("slow", "0.3")
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml"]
    runs = [
        subprocess.Popen(command, cwd=project.folder, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=900)[1] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], said
    calls = project.calls()
    assert calls.count("convert") == 1
    assert calls.count("train 10") == 2
    assert calls.count("evaluate base") == 1
    assert calls.count("evaluate tuned") == 2
    assert all(" done in " in text for text in said)

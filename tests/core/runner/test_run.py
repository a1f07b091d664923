"""Runs: what is done is kept and reused, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import LEFT_OUT, ROWS, rows_of, tree, write_rows
from waiting import has, wait_for

from selectmoe_core.errors import StageError
from selectmoe_core.runtime.processes import ended_by_signals
from selectmoe_core.store import Store

CHAIN = ["pool", "convert", "warmup", "score", "select", "train", "evaluate"]
STATES = ("...", "done in", "reused", "not needed")


def states(said):
    """What a run said of each node in the end."""
    found = {}
    for line in said.err.splitlines():
        if line.startswith("Next:"):  # what follows are the commands that it suggests
            break
        words = line.split()
        if len(words) > 2 and "selectmoe" not in words[:2]:  # the commands that a run suggests
            found[words[0]] = " ".join(words[2:4]) if words[2] != "reused" else "reused"
    return found


def made(said):
    return {key for key, state in states(said).items() if state == "done in"}


def selected(project):
    [path] = project.store.glob("select-*/selected_data.jsonl")
    return path.read_bytes()


# ------------------------------------------------------------------------------------- reuse


def test_a_first_run_makes_everything_and_says_so(project):
    said = project.run()
    assert said.code == 0, said.err
    assert made(said) == {
        *CHAIN, "evaluate@base", "score@random", "select@random", "train@random", "evaluate@random",
    }  # fmt: skip
    calls = project.calls()
    assert calls.count("convert") == 1
    assert [call for call in calls if call.startswith("score")] == [f"score {n}" for n in range(5)]
    assert calls.count("evaluate base") == 1
    assert calls.count("evaluate tuned") == 2
    assert calls[0] == "run started"
    assert calls[-1] == "run finished True"
    assert [c for c in calls if c.startswith("finished")][:3] == [
        "finished pool",
        "finished convert",
        "finished warmup",
    ]
    # The result is a table of the three arms and the place of the report, on stdout alone.
    assert all(word in said.out for word in ("base", "random", "selected", "letters", "±"))
    assert "report.html" in said.out


def test_a_second_run_makes_nothing(project):
    project.run()
    project.calls()
    before = {name: text for name, text in tree(project.store).items() if "hashes" not in name}
    said = project.run()
    assert said.code == 0
    assert set(states(said).values()) == {"reused"}
    assert project.calls() == ["run started", "run finished True"]
    after = {name: text for name, text in tree(project.store).items() if "hashes" not in name}
    assert after == before


def test_a_changed_fraction_makes_the_selection_and_below_only(project):
    project.run()
    said = project.run("select.fraction=0.5")
    assert made(said) == {
        "select", "train", "evaluate", "select@random", "train@random", "evaluate@random",
    }  # fmt: skip


def test_other_rows_of_the_pool_make_what_reads_them(project):
    project.run()
    write_rows(project.folder / "pool.jsonl", rows_of(ROWS + 3))
    assert "convert" not in made(project.run())


def test_what_only_the_lost_needed_is_not_made_again(project):
    """With the selection at hand, nobody misses the scores it was made from."""
    import shutil

    project.run()
    for folder in (*project.store.glob("score-*"), *project.store.glob("warmup-*")):
        if folder.is_dir():
            shutil.rmtree(folder)
    project.calls()
    said = project.run()
    assert said.code == 0, said.err
    assert made(said) == set()
    assert states(said)["score"].startswith("not needed")


def test_nodes_of_equal_digest_are_made_once(project):
    said = project.run("score.use=random")
    assert said.code == 0
    assert states(said)["train@random"] == "reused"
    assert project.calls().count("train 10") == 1


def test_until_stops_there_and_the_rest_follows_later(project):
    said = project.run("--until", "score")
    assert made(said) == {"pool", "convert", "warmup", "score"}
    assert made(project.run("--until", "select")) == {"select", "score@random", "select@random"}


def test_fresh_makes_a_stage_and_all_that_reads_it_anew(project):
    project.run()
    before = selected_all(project)
    said = project.run("--fresh", "select")
    assert made(said) == {
        "select", "train", "evaluate", "select@random", "train@random", "evaluate@random",
    }  # fmt: skip
    assert selected_all(project) == before
    assert "pool" not in made(said)


def selected_all(project):
    return sorted(path.read_bytes() for path in project.store.glob("select-*/selected_data.jsonl"))


# ----------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(("stage", "name"), [("train", "train-10"), ("evaluate", "evaluate")])
def test_a_failure_keeps_what_was_before(project, stage, name):
    project.tell(f"fail-{name}")
    said = project.run()
    assert said.code == 1
    assert "told to fail" in said.err
    [folder] = project.runs()
    log = (folder / "run.log").read_text()
    assert "Traceback" in log
    assert f"told to fail at {name}" in log
    project.untell(f"fail-{name}")
    project.calls()
    again = project.run()
    assert again.code == 0
    done = CHAIN[: CHAIN.index(stage)]
    assert not made(again) & set(done)
    assert {states(again)[key] for key in done} == {"reused"}


def test_scoring_goes_on_from_the_last_finished_shard(project):
    project.tell("fail-score-3")
    assert project.run().code == 1
    assert [c for c in project.calls() if c.startswith("score ")] == [
        "score 0",
        "score 1",
        "score 2",
        "score 3",
    ]
    project.untell("fail-score-3")
    # Shards keep the size they were begun with.
    assert project.run("score.shard_examples=100").code == 0
    assert [c for c in project.calls() if c.startswith("score ")] == ["score 3", "score 4"]
    resumed = selected_all(project)
    assert len(resumed) == 2
    whole = project.run("--outputs", "elsewhere")
    assert whole.code == 0
    fresh = sorted(
        path.read_bytes() for path in project.folder.glob("elsewhere/store/select-*/*.jsonl")
    )
    assert fresh == resumed


def test_the_size_of_shards_does_not_change_the_scores(project):
    for size in (1, 7, 40, 1000):
        outputs = f"out{size}"
        said = project.run(
            f"score.shard_examples={size}", "--outputs", outputs, "--until", "select"
        )
        assert said.code == 0
    found = {
        path.read_bytes() for path in project.folder.glob("out*/store/select-*/selected_data.jsonl")
    }
    assert len(found) == 2  # the recipe's own and the random one


def half_scored(project):
    """Let a run fail at its last shard, and return the folder of its scores."""
    project.tell("fail-score-4")
    assert project.run("compare.baselines=[base]", "--until", "score").code == 1
    project.untell("fail-score-4")
    project.calls()
    (folder,) = (path for path in project.store.glob("score-*") if path.is_dir())
    assert len(list((folder / "scores").glob("part-*.parquet"))) == 4
    return folder


def overwrite(path, place, content):
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + content + whole[place + len(content) :])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be read"),
        (lambda path: overwrite(path, 90, b"?" * 20), "cannot be read"),
        (lambda path: path.rename(path.with_name("part-00009.parquet")), "for a shard of 0"),
    ],
    ids=["emptied", "cut short", "overwritten within", "of no shard"],
)  # fmt: skip
def test_a_damaged_shard_of_unfinished_scores_is_scored_again(project, damage, says):
    whole = project.call("run", "recipe.toml", "--until", "score", "--outputs", "whole")
    assert whole.code == 0, whole.err
    damage(half_scored(project) / "scores" / "part-00002.parquet")
    said = project.run("--until", "score")
    assert said.code == 0, said.err
    assert "warning: score: " in said.err
    assert says in said.err
    assert [call for call in project.calls() if call.startswith("score")] == ["score 2", "score 4"]
    for path in (project.folder / "whole" / "store").glob("score-*/scores/*"):
        ours = project.store / path.relative_to(project.folder / "whole" / "store")
        assert ours.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["how.json", "shards.json"])
@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"examples": 0, "seconds": "x"}'])
def test_damaged_notes_of_an_unfinished_stage_name_the_way_out(project, name, content):
    (half_scored(project) / name).write_text(content)
    said = project.run("--until", "score")
    assert said.code == 1
    assert f"{name} is damaged" in said.err
    assert "--fresh score" in said.err
    assert "Traceback" not in said.err
    said = project.run("--until", "score", "--fresh", "score")
    assert said.code == 0, said.err


def test_fresh_removes_nothing_that_another_run_uses(project):
    assert project.run().code == 0
    before = sorted(project.store.glob("*/artifact.json"))
    (pool,) = project.store.glob("pool-*/artifact.json")
    digest = json.loads(pool.read_text())["digest"]
    with Store(project.store).used([("pool", digest)]):
        said = project.run("--fresh", "pool")
        assert said.code == 1
        assert "pool: another run uses" in said.err
        assert "wait until that run has ended" in said.err
        assert sorted(project.store.glob("*/artifact.json")) == before
        assert project.run("--fresh", "evaluate").code == 0  # nobody uses that
    assert project.run("--fresh", "pool", "--until", "pool").code == 0


def test_a_run_uses_its_artifacts_while_it_lasts(project, monkeypatch):
    from selectmoe_core.runner.fresh import forget
    from selectmoe_core.runner.run import _Run

    tried = []
    report = _Run._report

    def meanwhile(self):
        with pytest.raises(StageError, match="another run uses"):
            forget(self.plan, "pool")
        tried.append(1)
        return report(self)

    monkeypatch.setattr(_Run, "_report", meanwhile)
    assert project.run("--until", "select").code == 0
    assert tried == [1]


@pytest.mark.parametrize(
    ("stage", "overrides", "says"),
    [
        ("train", ["--until", "select"], "this run has no such stage"),
        ("warmup", ["score.use=length"], "no wanted stage reads it"),
    ],
)
def test_a_stage_that_is_not_part_of_the_run_cannot_be_fresh(project, stage, overrides, says):
    said = project.run("--fresh", stage, *overrides)
    assert said.code == 2
    assert f"--fresh {stage}: {says}" in said.err
    assert project.runs() == []


def test_a_resume_that_would_mix_devices_or_dtypes_stops(project, manager):
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.runner.execute import HOW

    _ = Registry(manager)
    project.tell("fail-score-3")
    project.run()
    project.untell("fail-score-3")
    [how] = project.store.glob(f"score-*/{HOW}")
    value = json.loads(how.read_text())
    how.write_text(json.dumps({**value, "dtype": "bfloat16"}))
    said = project.run()
    assert said.code == 1
    assert "score was begun with dtype bfloat16 and cannot go on with float32" in said.err
    assert "--fresh score" in said.err
    assert how.is_file()
    assert project.run("--fresh", "score").code == 0


def test_a_stage_without_torch_may_go_on_under_other_settings(project):
    project.tell("fail-score-3")
    project.run("--threads", "1")
    project.untell("fail-score-3")
    assert project.run("--threads", "2", "--dtype", "bfloat16").code == 0


def test_a_failing_observer_is_told_of_and_changes_nothing(project):
    project.tell("fail-observer")
    said = project.run()
    assert said.code == 0
    assert "warning: fake: selectmoe_stage_finished failed: told to fail at observer" in said.err
    assert "warning: fake: selectmoe_metrics failed" in said.err
    project.untell("fail-observer")
    assert made(project.run()) == set()


def test_observers_see_the_training_curve(project):
    project.run()
    calls = project.calls()
    assert [c for c in calls if c.startswith("metrics")] == [
        "metrics warmup 1",
        "metrics warmup 2",
        "metrics train 1",
        "metrics train 2",
        "metrics train 1",
        "metrics train 2",
    ]
    [log] = project.store.glob("warmup-*/train_log.jsonl")
    assert [json.loads(line) for line in log.read_text().splitlines()] == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0},
    ]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("equal", "all 40 scores are equal (1.0)"),
        ("nothing", "got no finite score"),
        ("infinite", "got no finite score"),
        ("short", "scores of shape (7,) for 8 examples"),
        ("skip", "none of 40 examples has a score: 40 x no tokens"),
    ],
)
def test_scores_that_cannot_be_trusted_stop_the_run(project, what, message):
    said = project.run(f"score.what={what}")
    assert said.code == 1
    assert message in said.err
    assert "Traceback" not in said.err
    assert not list(project.store.glob("score-*/artifact.json"))
    # Mended, the run goes on with what was good.
    assert project.run().code == 0


# -------------------------------------------------------------------------------- run folders


def test_the_run_folder_holds_all_that_tells_of_it(project):
    project.run("select.fraction=0.5")
    [folder] = project.runs()
    names = {path.name for path in folder.iterdir()}
    assert {
        "recipe.toml",
        "run.json",
        "run.log",
        "report.html",
        "report.md",
        "report.json",
    } <= names
    record = json.loads((folder / "run.json").read_text())
    assert record["name"] == "fake"
    assert {"python", "selectmoe", "torch", "transformers"} <= set(record["versions"])
    assert record["hardware"]["cores"]
    keys = [node["key"] for node in record["nodes"]]
    assert keys[:7] == CHAIN
    for node in record["nodes"]:
        assert (folder / node["folder"] / "artifact.json").is_file()
        assert not node["cached"]
        link = folder / "artifacts" / node["key"].replace(":", "-")
        assert (link / "artifact.json").is_file()
    assert record["nodes"][0]["arms"]
    assert "score done in" in (folder / "run.log").read_text()


def test_the_recipe_in_the_run_folder_makes_the_same_nodes_from_anywhere(project, monkeypatch):
    template = project.folder / "chat.jinja"
    template.write_text("{{ messages }}")
    project.edit("[pool]", '[chat]\ntemplate = "chat.jinja"\n\n[pool]')
    project.edit('model = "./base"', 'model = "base"')
    wanted = project.digests("select.fraction=0.5")
    assert project.run("select.fraction=0.5").code == 0
    [folder] = project.runs()
    monkeypatch.chdir(folder)
    said = project.call("plan", "recipe.toml", "--json", "--outputs", project.folder / "outputs")
    assert said.code == 0, said.err
    nodes = json.loads(said.out)["nodes"]
    assert {node["key"]: node["digest"] for node in nodes} == wanted
    assert {node["state"] for node in nodes} == {"cached"}


def test_runs_within_one_second_have_folders_of_their_own(project):
    for _ in range(3):
        project.run("--until", "pool")
    assert len(project.runs()) == 3


def test_a_failed_run_leaves_its_record_and_log(project):
    project.run("score.what=equal")
    [folder] = project.runs()
    assert (folder / "run.json").is_file()
    assert "all 40 scores are equal" in (folder / "run.log").read_text()
    assert [node["key"] for node in json.loads((folder / "run.json").read_text())["nodes"]] == [
        "pool",
        "convert",
        "warmup",
    ]


def test_the_selection_holds_full_rows_best_first(project):
    project.run()
    rows = {row["id"]: row for row in rows_of(ROWS)}
    [path] = [
        folder for folder in project.store.glob("select-*")
        if folder.is_dir()
        and json.loads((folder / "artifact.json").read_text())["details"]["key"] == "select"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (path / "selected_data.jsonl").open(encoding="utf-8")]
    assert len(lines) == 10
    assert [line["rank"] for line in lines] == list(range(1, 11))
    lengths = [len(line["messages"][1]["content"]) for line in lines]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths == [line["score"] for line in lines]
    cut = sorted((len(row["messages"][1]["content"]) for row in rows.values()), reverse=True)[9]
    assert min(lengths) == cut
    for line in lines:
        original = rows[line["meta"]["original_id"]]
        assert line["messages"] == original["messages"]
        assert line["source"] == original["dataset"]
    table = pq.read_table(path / "selection.parquet").to_pydict()
    assert [one.hex() for one in table["id"]] == [line["id"] for line in lines]
    facts = json.loads((path / "artifact.json").read_text())["facts"]
    assert facts["kept"] == 10
    assert sum(of["kept"] for of in facts["sources"].values()) == 10


def test_the_random_arm_does_not_depend_on_the_recipes_scores(project):
    project.run("--until", "select")
    before = set(selected_all(project))
    project.run("--until", "select", "score.factor=-1.0")
    assert len(set(selected_all(project)) - before) == 1


# ------------------------------------------------------------------------------- at one time


def start(project, *arguments, stderr=subprocess.PIPE):
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "run", "recipe.toml", *arguments]
    return subprocess.Popen(
        command, cwd=project.folder, stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def test_two_runs_at_once_on_one_store_share_the_work(project):
    project.tell("hold-score-3")
    log = project.folder / "second.log"
    processes = [start(project, "--until", "select")]
    wait_for(lambda: has(project.control / "calls", "score 3"))
    with log.open("w") as file:
        processes.append(start(project, "--until", "select", stderr=file))
        wait_for(lambda: has(log, "another run is making this"))
    project.untell("hold-score-3")
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    calls = project.calls()
    scores = [call for call in calls if call.startswith("score ")]
    assert sorted(scores) == [f"score {number}" for number in range(5)]
    assert calls.count("convert") == 1
    assert project.run("--until", "select").code == 0
    assert not [call for call in project.calls() if call.startswith("score ")]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(project):
    project.tell("hold-score-2")
    process = start(project, "--until", "select")
    wait_for(lambda: has(project.control / "calls", "score 2"))
    wait_for(lambda: list(project.store.glob("score-*/scores/part-00000.parquet")))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    project.untell("hold-score-2")
    project.calls()
    assert project.run("--until", "select").code == 0
    again = [call for call in project.calls() if call.startswith("score ")]
    assert "score 0" not in again
    assert again[-1] == "score 4"
    resumed = selected_all(project)
    project.run("--until", "select", "--outputs", "whole")
    assert resumed == sorted(
        path.read_bytes() for path in project.folder.glob("whole/store/select-*/*.jsonl")
    )


def test_an_interrupt_ends_with_130_and_keeps_what_is_done(project, monkeypatch):
    from selectmoe_core.stages.scoring import score

    real = score.write_part

    def interrupted(folder, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        real(folder, number, *rest)

    monkeypatch.setattr(score, "write_part", interrupted)
    said = project.run()
    assert said.code == 130
    assert "Interrupted" in said.err
    assert "Traceback" not in said.err
    monkeypatch.undo()


@pytest.mark.parametrize("error", [None, TypeError])
def test_an_interrupt_that_a_library_takes_for_its_own_ends_the_run(heard, project, error):
    """As pyarrow does, which imports pandas in the middle of a stage."""
    from selectmoe_core.stages import select

    real = select._write_table

    def interrupted(*arguments):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            if error:
                raise error from None
        real(*arguments)

    with pytest.MonkeyPatch.context() as patch, ended_by_signals():
        patch.setattr(select, "_write_table", interrupted)
        said = project.run()
    assert said.code == 130
    assert "Interrupted" in said.err
    assert "Traceback" not in said.err
    assert "train 10" not in project.calls()
    assert project.run().code == 0


def test_work_that_is_interrupted_is_gone_on_with(project):
    from selectmoe_core.stages.scoring import score

    with pytest.MonkeyPatch.context() as patch:
        real = score.write_part

        def interrupted(folder, number, *rest):
            if number == 2:
                raise KeyboardInterrupt
            real(folder, number, *rest)

        patch.setattr(score, "write_part", interrupted)
        assert project.run().code == 130
    project.calls()
    assert project.run().code == 0
    assert [c for c in project.calls() if c.startswith("score ")] == [
        "score 2",
        "score 3",
        "score 4",
    ]

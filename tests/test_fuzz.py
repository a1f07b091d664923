"""A short form of ``tools/fuzz.py``, some seeds of every area; and tests of the machinery."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PROGRAM = ROOT / "tools" / "fuzz.py"
SHORT = {"recipes": 100, "rows": 300, "artifacts": 6}
LONGER = {"checkpoints": 8, "kills": 1, "disks": 1, "together": 1}


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=False
    )


def short_form(tmp_path, areas):
    seed = os.environ.get("SELECTMOE_FUZZ_SEED", "0")
    numbers = [text for name, count in areas.items() for text in (f"--{name}", str(count))]
    done = fuzz(*numbers, "--jobs", "2", "--seed", seed, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [json.loads(line) for line in (tmp_path / "done.jsonl").read_text().splitlines()]
    assert {case["area"] for case in cases} == set(areas)
    assert len(cases) >= sum(areas.values()) - areas.get("rows", 0)
    assert (tmp_path / "findings.jsonl").read_text() == ""
    return cases


@pytest.mark.slow
def test_recipes_rows_and_damaged_stores(tmp_path):
    cases = short_form(tmp_path, SHORT)
    # Both ways are taken, or the mutations have become too strong or too weak to find anything.
    came = {case["came"] for case in cases if case["area"] == "recipes"}
    assert {"refused", "planned"} <= came
    assert "right" in {case["came"] for case in cases if case["area"] == "artifacts"}


@pytest.mark.slow
def test_checkpoints_ended_runs_full_disks_and_runs_at_once(tmp_path):
    short_form(tmp_path, LONGER)


# ------------------------------------------------------------------------- the machinery itself


@pytest.fixture
def area(monkeypatch):
    """An area whose cases do what their seed says."""
    from fuzzing.cases import Area, Report

    def run(generator: random.Random, folder: Path) -> Report:
        report = Report()
        match run.what:
            case "raise":
                raise KeyError("x")
            case "hang":
                while True:
                    pass
            case "fault":
                report.fault("wrong", "all of it")
        return report

    run.what = "fine"
    return Area("some", run, seconds=0.2)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("fine", None), ("raise", "KeyError at"), ("hang", "hangs at"), ("fault", "wrong")],
)
def test_whatever_a_case_does_is_noticed(area, tmp_path, what, kind):
    from fuzzing.cases import carry_out

    area.run.what = what
    findings = carry_out(area, 7, tmp_path).findings("some", 7)
    assert len(findings) == (kind is not None)
    if kind:
        assert findings[0].kind.startswith(kind)
        assert findings[0].again == "python tools/fuzz.py --again some:7"


@pytest.mark.parametrize(
    ("code", "err", "kind"),
    [
        (0, "", None),
        (2, "Error: no\nHint: do this\n", None),
        (2, "Error: no\n", "no hint"),
        (2, "", "no message"),
        (3, "Error: no\nHint: do this\n", "exit code 3"),
        (2, "Error: " + "x" * 2000 + "\nHint: h\n", "a message too long to read"),
        (2, "Error: \x1b[2J\nHint: h\n", "control characters on stderr"),
        (1, 'Traceback (most recent call last):\n'
         '  File "/a/selectmoe_core/b.py", line 3, in c\nKeyError: 1\n',
         "traceback: KeyError at selectmoe_core/b.py:c"),
    ],
)  # fmt: skip
def test_what_a_command_said_is_judged(code, err, kind):
    from fuzzing.place import Said, faults_of

    kinds = [found for found, _ in faults_of(Said(code, "", err), (0, 2))]
    assert kinds[:1] == ([kind] if kind else [])


def test_a_change_of_a_neighbour_is_seen(tmp_path):
    from fuzzing.place import changes, fingerprint

    (tmp_path / "out").mkdir()
    (tmp_path / "kept").write_text("a")
    before = fingerprint(tmp_path, tmp_path / "out")
    (tmp_path / "out" / "new").write_text("x")
    assert changes(before, fingerprint(tmp_path, tmp_path / "out")) == []
    (tmp_path / "kept").write_text("b")
    (tmp_path / "more").symlink_to("kept")
    found = changes(before, fingerprint(tmp_path, tmp_path / "out"))
    assert [text.partition(":")[0] for text in found] == ["'kept'", "'more'"]


def test_a_case_follows_from_its_seed_alone():
    from fuzzing.values import mutate_bytes, odd

    def drawn(seed):
        generator = random.Random(f"recipes {seed}")
        return repr([odd(generator) for _ in range(20)]), mutate_bytes(generator, b"abcdef" * 9)

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_a_call_leaves_out_what_an_earlier_one_did_even_if_that_was_killed(tmp_path):
    arguments = ("--rows", "60", "--out", str(tmp_path))
    assert fuzz(*arguments).returncode == 0
    done = tmp_path / "done.jsonl"
    first, second, third = done.read_text().splitlines()
    done.write_text(f"{first}\n{third}\n{second[:30]}")
    said = fuzz(*arguments)
    assert said.returncode == 0, said.stderr
    seeds = [json.loads(line)["seed"] for line in done.read_text().splitlines()]
    assert seeds == [json.loads(line)["seed"] for line in (first, third, second)]


def test_a_call_whose_time_is_up_says_what_is_left(tmp_path):
    said = fuzz("--rows", "60", "--minutes", "0", "--out", str(tmp_path))
    assert said.returncode == 3
    assert "3 cases are left" in said.stdout
    assert (tmp_path / "done.jsonl").read_text() == ""


def test_seeds_are_cut_into_chunks_without_those_that_are_done():
    from fuzzing.crowd import AREAS, chunks

    found = chunks(AREAS["kills"], [0, 1, 2, 3, 5, 6, 9], jobs=2)
    assert [(chunk.start, chunk.stop) for chunk in found] == [(0, 4), (5, 7), (9, 10)]


def test_a_run_is_ended_in_every_stage():
    from fuzzing.kills import Undisturbed

    stages = {"pool": 1.0, "train": 2.0, "score": 0.5}
    moments = [Undisturbed(9.0, {}, stages).moment(random.Random(n)) for n in range(200)]
    drawn = {name: [m.after for m in moments if m.stage == name] for name in ("", *stages)}
    assert all(len(times) > 30 for times in drawn.values())
    assert max(drawn["train"]) <= 2.0 < max(drawn[""])
    later = [Undisturbed(9.0, {}, stages).moment(random.Random(n), {"pool"}) for n in range(200)]
    assert {moment.stage for moment in later} == {"", "score", "train"}


def test_the_recipe_of_the_real_chain_has_options_that_exist(tmp_path, cli):
    from fuzzing.chains import NANO

    (tmp_path / "recipe.toml").write_text(NANO)
    said = cli("plan", tmp_path / "recipe.toml", "--outputs", tmp_path / "outputs")
    assert said.code == 0, said.err


def test_results_are_those_of_any_place_and_their_bytes_count(tmp_path):
    from fuzzing.chains import results

    def made(name, text):
        folder = tmp_path / name / "store" / "score-1"
        folder.mkdir(parents=True)
        facts = {"model": str(tmp_path / name / "model"), "seconds": len(name)}
        (folder / "artifact.json").write_text(json.dumps({"facts": facts}))
        (folder / "tokens.json").write_text(f"{tmp_path / name}/{text}")
        return results(tmp_path / name)

    assert made("a", "x") == made("another", "x") != made("third", "y")

"""Past runs: listed with what differed, compared without running anything."""

import json

import pytest

from selectmoe_core.compare.past import compare_runs
from selectmoe_core.compare.runs import changes_shown, differences, flat


@pytest.fixture
def ran(project):
    """Three runs: the recipe, other options, the same again."""
    for changes in ([], ["score.factor=-1.0", "select.fraction=0.5"], ["score.factor=-1.0"]):
        assert project.run(*changes).code == 0
    project.calls()
    return project


def listed(project, *arguments):
    said = project.call("runs", "--json", *arguments)
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_runs_say_what_differed_and_what_came_out(ran):
    last, middle, first = listed(ran)
    assert first["changes"] is None
    assert middle["changes"] == {"score.factor": -1.0, "select.fraction": 0.5}
    assert last["changes"] == {"select.fraction": 0.25}
    assert all(run["result"].startswith("selected ") for run in (last, middle, first))
    assert [run["name"] for run in (last, first)] == ["fake", "fake"]


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_table_fits(ran, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    said = ran.call("runs")
    assert said.code == 0, said.err
    assert "score.factor=-1.0, select.fraction=0.5" in said.out
    assert max(map(len, said.out.splitlines())) <= int(width)
    assert said.out.count("fake/") == 3


def test_a_failed_run_and_a_damaged_record_are_shown(ran):
    ran.tell("fail-evaluate")
    assert ran.run("train.epochs=4").code == 1
    (ran.runs()[0] / "run.json").write_text("{")
    last, *_, first = listed(ran)
    assert (last["result"], last["changes"]) == (
        "not finished",
        {"score.factor": None, "train.epochs": 4},
    )
    assert first["result"] == "its record is damaged"
    assert ran.call("runs").code == 0


def test_no_runs(project):
    said = project.call("runs")
    assert (said.code, said.out) == (0, "")
    assert "no runs" in said.err
    assert listed(project) == []


def test_a_run_with_the_name_of_an_arm_is_not_taken_for_that_arm(project):
    """Its own evaluation would stand in place of the random arm's."""
    assert project.run().code == 0
    assert project.run("score.factor=-1.0", "name=random").code == 0
    folders = [next(project.folder.glob(f"outputs/{name}/*/*")) for name in ("fake", "random")]
    found = [one.contender for one in compare_runs(folders).findings.results]
    own = "/".join(folders[1].parts[-3:])
    roles = {one.label: one.role for one in found}
    assert roles == {"base": "base", "random": "random", "fake": "strategy", own: "strategy"}


def test_runs_of_one_recipe(ran):
    assert len(listed(ran, "--recipe", "fake")) == 3
    assert listed(ran, "--recipe", "other") == []


def test_two_runs_side_by_side(ran):
    said = ran.call("compare", *ran.runs()[:2])
    assert said.code == 0, said.err
    assert ran.calls() == []
    text = " ".join(said.out.split())
    assert "in score.factor=-1.0, select.fraction=0.5" in text
    # The plain fake keeps no answers to single questions: no interval is made up.
    assert text.count("no verdict on fake/") == 2
    assert "without an interval" in text


def test_runs_on_another_footing_are_said_first(ran):
    assert ran.run("chat.max_length=99", "train.epochs=3", "score.factor=2.0").code == 0
    said = ran.call("compare", ran.runs()[0], ran.runs()[-1])
    assert said.code == 0, said.err
    first, second, *rest = said.out.replace("\n      ", " ").splitlines()
    assert first.startswith("Note: the chat format differs between fake/")
    assert "chat.max_length 99 against" in first
    assert "the training differs" in second
    assert "train.epochs 3 against the default" in second
    assert "nobody looked for questions of the evaluation" in " ".join(rest)
    looked = ["filter.leak.use=fake-filter", "filter.leak.questions=true"]
    assert ran.run(*looked).code == 0
    said = ran.call("compare", ran.runs()[0], ran.runs()[-1])
    assert "nobody looked" not in " ".join(said.out.split())
    assert "differs between" not in said.out


def test_runs_cannot_be_changed_or_mixed_with_recipes(ran):
    said = ran.call("compare", *ran.runs()[:2], "seed=[1,2]")
    assert said.code == 2
    assert "finished runs are compared as they are" in said.err
    said = ran.call("compare", ran.runs()[0], "recipe.toml")
    assert said.code == 2


def test_a_run_without_an_evaluation_cannot_be_compared(ran):
    ran.run("--until", "select", "seed=9")
    said = ran.call("compare", ran.runs()[0], ran.runs()[-1])
    assert said.code == 1
    assert "no finished evaluation" in said.err


def test_a_damaged_evaluation_is_not_compared(project):
    for changes in ([], ["score.factor=-1.0"]):
        assert project.run("evaluate.answers=20", *changes).code == 0
    first, second = project.runs()
    (file,) = (first / "artifacts" / "evaluate").resolve().glob("samples_*.jsonl")
    file.write_text("{")
    said = project.call("compare", first, second)
    assert said.code == 1
    assert f"{file} has 1 bytes" in said.err
    assert "run the recipe again" in said.err


@pytest.mark.parametrize("option", [["--plan"], ["--device", "cpu"], ["--dtype", "auto"]])
def test_options_of_running_say_nothing_about_finished_runs(ran, option):
    said = ran.call("compare", *ran.runs()[:2], *option)
    assert said.code == 2
    assert option[0] in said.err


def test_differences_of_recipes():
    before = {"a": 1, "b": {"c": 2, "d": [1]}, "e": 5}
    after = {"a": 1, "b": {"c": 3, "d": [1]}, "f": {"g": 0}}
    found = differences(flat(before), flat(after))
    assert found == {"b.c": 3, "e": None, "f.g": 0}
    assert changes_shown(found) == "b.c=3, f.g=0, ~e"
    assert changes_shown({str(n): n for n in range(5)}) == "0=0, 1=1, 2=2 and 2 more"
    assert (changes_shown({}), changes_shown(None)) == ("nothing", "(first run)")

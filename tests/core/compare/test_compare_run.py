"""Comparisons of a chain of fakes: what is shared, what differs by seed, what is kept and said."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import LEFT_OUT, ROWS, tree
from waiting import has, wait_for

from selectmoe_core.compare.advice import next_steps
from selectmoe_core.compare.costs import ArmCost
from selectmoe_core.compare.findings import Contender, find
from selectmoe_core.compare.results import Task
from selectmoe_core.compare.summary import Summary

STRATEGIES = """
[compare]
baselines = ["base", "random", "source-balanced random", "length", "full"]
seeds = [1, 2, 3]

[compare.strategies.own]

[compare.strategies.short]
score.factor = -1.0
"""


@pytest.fixture
def comparing(project):
    """A project whose recipe compares two strategies; the evaluation keeps its answers."""
    project.edit('[compare]\nbaselines = ["base", "random"]\n', STRATEGIES)
    project.edit('use = "fake-eval"\n', 'use = "fake-eval"\nanswers = 400\n')
    return project


def compare(project, *arguments):
    return project.call("compare", "recipe.toml", *arguments)


def documents(project, name="fake"):
    """What the comparisons left, the oldest first."""
    paths = project.folder.glob(f"outputs/{name}/*/*/compare.json")
    return [json.loads(p.read_text()) for p in sorted(paths, key=lambda p: p.stat().st_ctime_ns)]


def arm(document, label):
    [found] = [one for one in document["arms"] if one["label"] == label]
    return found


def rows(project, label):
    """The ids that an arm trained on, seed by seed."""
    folder = max(project.folder.glob("outputs/fake/*/*/artifacts"), key=lambda p: p.stat().st_ctime)
    links = sorted(folder.glob(f"train@{label}-?"))
    return [(link / "model" / "rows").read_text().split() for link in links]


def test_what_arms_share_runs_once(comparing):
    said = compare(comparing)
    assert said.code == 0, said.err
    calls = comparing.calls()
    assert calls.count("convert") == 1
    assert calls.count("finished pool") == 1
    # One warm-up, then three trainings of each of own, short, length, random: 10 rows each.
    assert calls.count("train 20") == 1
    assert calls.count("train 10") == 12
    assert calls.count(f"train {ROWS}") == 3
    assert calls.count("evaluate base") == 1
    # The scores of a strategy are shared by its seeds: five shards each.
    assert sum(call.startswith("score ") for call in calls) == 10


def test_arms_of_equal_recipes_share_everything(comparing):
    assert compare(comparing, "compare.strategies.twin.score.factor=-1.0").code == 0
    assert comparing.calls().count("train 10") == 12
    short, twin = (arm(documents(comparing)[0], label) for label in ("short", "twin"))
    assert short["results"] == twin["results"]


def test_every_seed_trains_again_and_random_draws_again(comparing):
    compare(comparing)
    draws = rows(comparing, "random")
    assert len(draws) == 3
    assert len({frozenset(draw) for draw in draws}) == 3
    assert len({frozenset(kept) for kept in rows(comparing, "short")}) == 1
    found = documents(comparing)[0]
    assert len(set(arm(found, "random")["results"]["letters"]["by_seed"])) == 3
    assert len(set(arm(found, "short")["results"]["letters"]["by_seed"])) == 3
    assert len(arm(found, "base")["results"]["letters"]["by_seed"]) == 1
    assert found["seeds"] == [1, 2, 3]


def test_the_mean_difference_is_that_of_the_reported_results(comparing):
    compare(comparing)
    found = documents(comparing)[0]
    short, random = (
        arm(found, label)["results"]["letters"]["by_seed"] for label in ("short", "random")
    )
    expected = sum(one - other for one, other in zip(short, random, strict=True)) / 3
    difference = arm(found, "short")["results"]["letters"]["difference"]
    assert difference["value"] == pytest.approx(expected)
    assert difference["low"] < expected < difference["high"]
    assert (difference["seeds"], difference["questions"]) == (3, 400)
    assert found["version"] == 1


def test_the_second_call_makes_nothing_and_says_the_same(comparing):
    first = compare(comparing)
    comparing.calls()
    before = {name: text for name, text in tree(comparing.store).items() if "hashes" not in name}
    second = compare(comparing)
    assert not [call for call in comparing.calls() if call.startswith(("train", "eval", "score"))]
    after = {name: text for name, text in tree(comparing.store).items() if "hashes" not in name}
    assert after == before
    assert first.out.rpartition("Report:")[0] == second.out.rpartition("Report:")[0]


def test_a_failed_comparison_goes_on_where_it_was(comparing):
    comparing.tell(f"fail-train-{ROWS}")
    said = compare(comparing)
    assert said.code == 1
    assert "told to fail" in said.err
    done = comparing.calls().count("train 10")
    assert done > 0
    comparing.untell(f"fail-train-{ROWS}")
    assert compare(comparing).code == 0
    again = comparing.calls()
    assert again.count("train 10") == 12 - done
    assert again.count(f"train {ROWS}") == 3


def test_a_killed_comparison_goes_on_where_it_was(comparing):
    """Killed outright in the middle of its trainings; the rest equals an uninterrupted one."""
    comparing.tell("slow", "0.2")  # each shard of a strategy's scores
    command = [sys.executable, "-m", "selectmoe_core", *LEFT_OUT, "compare", "recipe.toml", "-q"]
    process = subprocess.Popen(command, cwd=comparing.folder, stderr=subprocess.DEVNULL)
    wait_for(lambda: has(comparing.control / "calls", "score 1"), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = comparing.calls()
    comparing.untell("slow")
    assert compare(comparing).code == 0
    after = comparing.calls()
    assert before.count("train 10") + after.count("train 10") == 12
    assert after.count("finished pool") == 0
    assert after.count("convert") == 0
    [resumed] = documents(comparing)
    shutil.rmtree(comparing.store)
    assert compare(comparing).code == 0
    uninterrupted = documents(comparing)[-1]
    for one, other in zip(resumed["arms"], uninterrupted["arms"], strict=True):
        assert one["results"] == other["results"]


def test_a_cost_that_is_no_longer_known_is_said(comparing):
    compare(comparing)
    [folder] = comparing.folder.glob("outputs/fake/*/*/artifacts")
    shutil.rmtree((folder / "score@short").resolve())
    said = compare(comparing)
    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    assert "the cost leaves out what is no longer in the store: score@short" in text
    assert not [call for call in comparing.calls() if call == "score 0"][2:]


def test_new_seeds_add_to_what_is_there(comparing):
    compare(comparing)
    comparing.calls()
    assert compare(comparing, "seed=[1,2,3,4]").code == 0
    assert (
        comparing.calls().count("train 10") == 4
    )  # random, length, own and short: the fourth seed
    assert documents(comparing)[-1]["seeds"] == [1, 2, 3, 4]


def test_a_budget_is_equal_for_all_but_base_and_full(comparing):
    said = compare(comparing, "compare.budget=7")
    assert said.code == 0, said.err
    kept = {one["label"]: one["kept"] for one in documents(comparing)[0]["arms"]}
    assert kept == {
        "base": None, "random": 7, "source-balanced random": 7, "length": 7, "full": ROWS,
        "own": 7, "short": 7,
    }  # fmt: skip
    assert "not one budget" not in said.out


def test_a_budget_keeps_the_other_options_of_the_selector(comparing):
    said = compare(comparing, "compare.budget=6", "select.per=source", "compare.seeds=[1]")
    assert said.code == 0, said.err
    [link] = comparing.folder.glob("outputs/fake/*/*/artifacts/select@short")
    facts = json.loads((link / "artifact.json").read_text())["facts"]
    assert {source["kept"] for source in facts["sources"].values()} == {2}


def test_a_budget_in_tokens_is_equal_for_all_but_base_and_full(comparing):
    said = compare(comparing, "--plan", "compare.token_budget=5000", "select.per=source")
    assert said.code == 0, said.err
    found = re.findall(r"^select@(\S+) +(top-\S+|token-budget)", said.out, re.MULTILINE)
    selectors = dict(found)
    assert selectors.pop("full") == "top-fraction"
    assert selectors.keys() >= {"random:1", "random:3", "length", "own", "short"}
    assert set(selectors.values()) == {"token-budget"}
    both = compare(comparing, "compare.token_budget=5000", "compare.budget=7")
    assert both.code == 2
    assert "a comparison has one budget" in both.err


def test_a_selector_that_keeps_by_value_has_no_budget(comparing):
    said = compare(comparing, "compare.budget=5", "compare.strategies.short.select.use=threshold",
                   "compare.strategies.short.select.min=0.5")  # fmt: skip
    assert said.code == 2
    assert "the selector threshold cannot keep a number of examples" in said.err


def test_questions_of_the_evaluation_in_the_pool_are_said_at_the_top(comparing):
    said = compare(comparing, "compare.seeds=[1]", "compare.baselines=[random]")
    text = " ".join(said.out.split())
    assert "nobody looked for questions of the evaluation in the pool" in text
    looked = ["filter.leak.use=fake-filter", "filter.leak.questions=true"]
    said = compare(comparing, "compare.seeds=[1]", "compare.baselines=[random]", *looked)
    text = " ".join(said.out.split())
    # "Question 0" is asked, and stands in one of the rows.
    assert f"1 of {ROWS} rows of the pool hold questions of the evaluation: filter:leak" in text
    assert "nobody looked" not in text


def test_random_arms_draw_as_many_as_a_selector_that_reads_vectors(comparing):
    recipe = comparing.folder / "recipe.toml"
    recipe.write_text(recipe.read_text() + '\n[embed]\nuse = "fake-embed"\n')
    near = ["select.use=k-center", "select.k=8", "select.threshold=1.0", "compare.seeds=[1]"]
    said = compare(comparing, *near, "select.per=source", "~compare.strategies")
    assert said.code == 0, said.err
    arms = {one["label"]: one["kept"] for one in documents(comparing)[0]["arms"]}
    assert arms["random"] == arms["source-balanced random"] == 8
    names = {
        json.loads((link / "artifact.json").read_text())["component"]
        for link in comparing.folder.glob("outputs/fake/*/*/artifacts/select@*random*")
    }
    assert names == {"top-k"}


def test_unequal_budgets_are_said_at_the_top(comparing):
    said = compare(comparing, "compare.strategies.short.select.fraction=0.5")
    assert said.out.startswith("Note: ")
    text = " ".join(said.out.split())
    assert "not one budget: short trains on 20 examples, random on 10" in text


def test_one_seed_says_what_it_does_not_know(comparing):
    said = compare(comparing, "compare.seeds=[5]")
    text = " ".join(said.out.split())
    assert "the noise of seeds is unknown" in text
    assert "1 seed:" in text


def test_a_grid_compares_at_each_point(comparing):
    said = compare(comparing, "select.fraction=[0.25,0.5]", "compare.seeds=[1,2]")
    assert said.code == 0, said.err
    found = documents(comparing)[0]
    reference = {one["label"]: one["reference"] for one in found["arms"]}
    assert reference["short fraction=0.25"] == "random fraction=0.25"
    assert reference["short fraction=0.5"] == "random fraction=0.5"
    # The base model and the whole pool do not depend on the fraction: one row each.
    assert (reference["base"], reference["full"]) == ("", "")
    assert arm(found, "short fraction=0.5")["kept"] == 20
    assert len(found["arms"]) == 2 + 2 * 5


def test_a_grid_over_budgets(comparing):
    said = compare(comparing, "compare.budget=[5,9]", "compare.seeds=[1]")
    assert said.code == 0, said.err
    kept = {one["label"]: one["kept"] for one in documents(comparing)[0]["arms"]}
    assert (kept["short budget=5"], kept["random budget=9"]) == (5, 9)


def test_a_grid_that_random_does_not_feel_has_one_random(comparing):
    said = compare(comparing, "~compare.strategies", "score.factor=[1.0,-1.0]", "compare.seeds=[1]")
    assert said.code == 0, said.err
    found = documents(comparing)[0]
    labels = [one["label"] for one in found["arms"]]
    assert labels[:2] == ["base", "random"]
    assert {one for one in labels if "recipe" in one} == {
        "recipe factor=1.0", "recipe factor=-1.0",
    }  # fmt: skip
    assert {one["reference"] for one in found["arms"]} == {"", "random"}


def test_lists_are_values_where_an_option_takes_one(comparing):
    said = compare(comparing, "evaluate.tasks=[letters,words]", "compare.seeds=[1]")
    assert said.code == 0, said.err
    [found] = documents(comparing)
    assert [task["name"] for task in found["tasks"]] == ["letters", "words"]
    assert found["judged_tasks"] == ["letters", "words"]
    mean = arm(found, "short")["results"]["mean"]["value"]
    own = [arm(found, "short")["results"][name]["value"] for name in ("letters", "words")]
    assert mean == pytest.approx(sum(own) / 2)


def test_an_arm_makes_the_score_it_chooses_by_and_no_other(comparing):
    """Of several scores; and a strategy may put one score in the place of all."""
    text = comparing.recipe.read_text()
    start, end = text.index("[score]"), text.index("[select]")
    named = "[score.a]\nuse = 'fake-score'\n[score.b]\nuse = 'fake-score'\nfactor = -1.0\n\n"
    text = text[:start] + named + text[end:].replace("0.25", '0.25\nscore = "a"')
    text = text.partition("[compare.strategies.own]")[0]
    comparing.recipe.write_text(
        text + "[compare.strategies.a]\n[compare.strategies.b]\nselect.score = 'b'\n"
        "[compare.strategies.one]\nscore.use = 'length'\n"
    )
    said = compare(comparing, "--plan", "compare.seeds=[1]")
    assert said.code == 0, said.err
    keys = set(re.findall(r"^(score\S*) ", said.out, re.MULTILINE))
    assert keys == {"score@random", "score@full", "score@length", "score:a@a", "score:b@b"}
    # `one` scores as the baseline `length` does: all of it is shared.
    assert "@one" not in said.out


def test_arms_in_processes_of_their_own(comparing):
    said = compare(
        comparing, "compare.strategies.child.score.use=fake-child", "compare.seeds=[1]",
        "select.fraction=[0.25,0.5]", "compare.baselines=[random]",
    )  # fmt: skip
    assert said.code == 0, said.err
    labels = {one["label"] for one in documents(comparing)[0]["arms"]}
    assert "child fraction=0.5" in labels


def test_recipes_are_strategies_named_by_their_files(comparing):
    text = comparing.recipe.read_text().partition("[compare]")[0]
    (comparing.folder / "first.toml").write_text(text)
    (comparing.folder / "second.toml").write_text(text.replace("reads_model = true", "factor = 2"))
    said = comparing.call("compare", "first.toml", "second.toml", "seed=[1,2]")
    assert said.code == 0, said.err
    labels = [one["label"] for one in documents(comparing)[0]["arms"]]
    assert labels == ["base", "random", "first", "second"]


def test_strategies_whose_names_look_alike_as_files_keep_their_own(comparing):
    text = comparing.recipe.read_text().partition("[compare]")[0]
    (comparing.folder / "gr\u00f6\u00dfe.toml").write_text(text)
    text = text.replace("reads_model = true", "factor = 2")
    (comparing.folder / "gr\u00fc\u00dfe.toml").write_text(text)
    said = comparing.call("compare", "gr\u00f6\u00dfe.toml", "gr\u00fc\u00dfe.toml", "seed=[1]")
    assert said.code == 0, said.err
    document = documents(comparing)[0]
    files = [file for one in document["arms"] for file in one["recipes"]]
    assert len(files) == len(set(files)) == 3
    [folder] = comparing.folder.glob("outputs/fake/*/*")
    assert all((folder / file).is_file() for file in files)
    assert "factor = 2" in (folder / files[-1]).read_text().replace("2.0", "2")
    assert "factor = 2" not in (folder / files[-2]).read_text()


def test_a_strategy_cannot_have_the_name_of_a_baseline(comparing):
    text = comparing.recipe.read_text().partition("[compare]")[0]
    (comparing.folder / "random.toml").write_text(text)
    said = comparing.call("compare", "random.toml", "--plan")
    assert said.code == 2
    assert "the strategy 'random' has the name of a baseline" in said.err
    assert "give the recipe random.toml another name" in said.err


def test_the_base_model_is_the_one_that_training_starts_from(comparing):
    """Also where [evaluate] names another model."""
    other = comparing.folder / "other"
    other.mkdir()
    for file in (comparing.folder / "base").iterdir():
        (other / file.name).write_bytes(file.read_bytes() + b" ")
    said = compare(comparing, "--plan", "evaluate.model=./other")
    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    assert re.search(r"evaluate@base reads model \S*/base\b", text)
    assert re.search(r"base is the untouched \S*/base, and the trained arms are evaluated on", text)


def test_plan_runs_nothing_and_shows_every_arm(comparing):
    said = compare(comparing, "--plan")
    assert said.code == 0, said.err
    assert comparing.calls() == []
    assert "arm short: seeds 1, 2, 3" in said.out
    assert len(re.findall(r"^train@\S+ +fake-train +to do", said.out, re.MULTILINE)) == 18
    assert not list(comparing.folder.glob("outputs/fake"))


def test_every_arm_leaves_a_recipe_that_runs_alone(comparing):
    compare(comparing)
    before = arm(documents(comparing)[0], "short")
    [folder] = comparing.folder.glob("outputs/fake/*/*")
    comparing.calls()
    said = comparing.call("run", folder / before["recipes"][1])
    assert said.code == 0, said.err
    assert not [call for call in comparing.calls() if call.startswith("train")]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_no_line_is_wider_than_the_terminal(comparing, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    name = "a-strategy-with-a-long-name-" * 3
    said = compare(comparing, f"compare.strategies.{name}.score.factor=3", "compare.seeds=[1,2]")
    assert said.code == 0, said.err
    lines = said.out.rpartition("Report:")[0].splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["compare.baselines=[base]"], "no baseline 'random' to compare with"),
        (["compare.strategies.x.scor.use=length"], "the strategy 'x' sets 'scor'"),
        (["compare.strategies.random.score.factor=2"], "has the name of a baseline"),
        (["compare.strategies.x.score.factr=2"], "unknown option 'factr'"),
        (["compare.strategies.x.score.factr=2"], "(in x)"),
        (["compare.seeds=[]"], "at least one seed"),
        (["compare.seeds=[1,1]"], "each only once"),
        (["compare.baselines=[base,rando]"], "rando"),
        (["select.fraction=[]"], "has no value"),
        (["compare.budget=5", "select.fraction=[0.1,0.2]"], "the grid changes nothing in"),
        (["select.use=threshold", "select.min=1.0"], "needs a selector"),
        (["compare.strategies.x.evaluate.answers=9"], "[evaluate] differs: answers 9 against 400"),
        (["compare.strategies.x.chat.max_length=9"], "the chat format differs: max_length 9"),
        (["compare.strategies.x.train.model=./other"], "the model to train differs"),
        (["~train"], "a comparison needs [train]"),
        (["compare.budget=0"], "budget"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_runs(comparing, change, said):
    other = comparing.folder / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "other"}')
    found = compare(comparing, *change)
    assert found.code == 2, found.err
    assert said in " ".join(found.err.split())
    assert comparing.calls() == []


def test_other_training_options_are_said_at_the_top(comparing):
    said = compare(comparing, "compare.strategies.short.train.epochs=3", "compare.seeds=[1]")
    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    assert "short is trained with other options than random: epochs 3 against 1" in text


def test_a_plain_run_takes_base_and_random_alone(comparing):
    said = comparing.run()
    assert said.code == 0, said.err
    plan = comparing.plan()
    assert {name for node in plan["nodes"] for name in node["arms"]} == {
        "selected", "base", "random",
    }  # fmt: skip
    assert "baseline length" in plan["not_needed"]


def test_finished_runs_are_compared_without_running(comparing):
    comparing.run()
    comparing.run("score.factor=-1.0")
    comparing.calls()
    said = comparing.call("compare", *comparing.runs())
    assert said.code == 0, said.err
    assert comparing.calls() == []
    assert "1 seed: the noise of seeds is unknown" in " ".join(said.out.split())
    alone = comparing.call("compare", comparing.runs()[0])
    assert alone.code == 1
    assert "Hint: name two folders" in alone.err


def test_names_are_escaped_in_every_output(comparing):
    said = compare(comparing, 'evaluate.tasks=["<b>|x"]', "compare.seeds=[1]")
    assert said.code == 0, said.err
    [folder] = [path.parent for path in comparing.folder.glob("outputs/fake/*/*/compare.html")]
    page = (folder / "compare.html").read_text()
    assert "<b>|x" not in page
    assert "&lt;b&gt;|x" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    text = (folder / "compare.md").read_text()
    assert "<b>" not in text
    assert r"\<b\>\|x" in text


TRUNCATED = "7 requests were longer than the model's context and were truncated"
OUT_OF_RANGE = "3 questions have an answer that is not among their choices: they count as wrong"
FEW = ("compare.seeds=[1,2]", "compare.baselines=[base,random]")


def read_files(project):
    """The three files of the latest comparison: document, Markdown, page."""
    folders = project.folder.glob("outputs/fake/*/*/compare.json")
    last = max(folders, key=lambda path: path.stat().st_ctime_ns).parent
    texts = [(last / f"compare.{kind}").read_text() for kind in ("md", "html")]
    return json.loads((last / "compare.json").read_text()), *texts


def test_a_task_at_chance_is_said_at_the_top(comparing):
    """Nobody learns anything, and guessing gives as much."""
    said = compare(comparing, "evaluate.right=0.25", "evaluate.gain=0.0", *FEW)
    assert said.code == 0, said.err
    top, _, rest = said.out.partition("\nOn letters")
    assert "at chance on letters: every arm" in " ".join(top.partition("letters (acc")[0].split())
    assert rest.count("no verdict on") == 2
    document, markdown, page = read_files(comparing)
    assert document["headline"] == "None of 2 strategies beat random"
    assert {arm(document, label)["verdict"]["kind"] for label in ("own", "short")} == {"no verdict"}
    assert markdown.index("at chance on letters") < markdown.index("On letters")
    assert page.index("at chance on letters") < page.index('id="verdict"')


def test_a_base_above_every_arm_is_said_at_the_top(comparing):
    said = compare(comparing, "evaluate.right=0.9", "evaluate.gain=-0.01", *FEW)
    assert said.code == 0, said.err
    base, *others = (
        arm(documents(comparing)[0], label)["results"]["mean"]["value"]
        for label in ("base", "random", "own", "short")
    )
    assert base > max(others)
    _, markdown, page = read_files(comparing)
    for text in (said.out, markdown, page):
        start = " ".join(text.split()).partition("score")[0]
        assert "base is better than every trained arm: training on any of these" in start
    said = compare(comparing, "evaluate.right=0.3", "evaluate.gain=0.01", *FEW)
    assert "base is better" not in said.out


def test_truncated_questions_and_answers_out_of_range_are_said_at_the_top(comparing):
    warnings = json.dumps([TRUNCATED, OUT_OF_RANGE])
    tuned = json.dumps(["letters is at chance (acc 0.2)", "it has seen the questions"])
    said = compare(
        comparing, f"evaluate.warnings={warnings}", f"evaluate.warns_tuned={tuned}", *FEW
    )
    assert said.code == 0, said.err
    document, markdown, page = read_files(comparing)
    # Said once, by every arm; what only some arms have names them.
    notes = [TRUNCATED, OUT_OF_RANGE, "random, own, short: it has seen the questions"]
    assert [note for note in document["notes"] if note in notes] == notes
    assert not any("is at chance (acc" in note for note in document["notes"])
    assert page.count("were truncated") == 1
    for text in (said.out, markdown, page):
        start = " ".join(text.split()).partition("score")[0]
        assert "is not among their choices: they count as wrong" in start


def test_the_page_says_what_arms_chose_and_what_to_do_next(comparing, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["selectmoe", "compare", "recipe.toml", "seed=[1,2]"])
    said = compare(comparing, "compare.strategies.twin.score.factor=-2.0", *FEW)
    assert said.code == 0, said.err
    document, _, page = read_files(comparing)
    overlap = document["overlap"]
    assert overlap["arms"] == ["random", "own", "short", "twin"]
    assert overlap["chance"] == 0.25
    folder = max(comparing.folder.glob("outputs/fake/*/*/artifacts"))
    kept = [
        set((folder / f"train@{label}" / "model" / "rows").read_text().split())
        for label in ("random-1", "own-1", "short-1")
    ]
    kept.append(kept[-1])  # the twin trains on the same: its artifacts are those of short
    expected = [[len(one & other) / len(one) for other in kept] for one in kept]
    np.testing.assert_allclose(overlap["shares"], expected)
    assert "What they chose" in page
    more = "selectmoe compare recipe.toml &#39;seed=[1,2,3,4]&#39;"
    assert more in page.partition("Would more seeds decide?")[2]


@pytest.mark.parametrize(
    ("command", "seeds", "wanted"),
    [
        (
            "selectmoe compare a.toml 'seed=[1,2]' x.y=3", (1, 2),
            "selectmoe compare a.toml x.y=3 'seed=[1,2,3,4]'",
        ),
        ("python work.py", (1,), None),
        ("selectmoe compare 'open", (1,), None),
        ("selectmoe compare a b", (), None),
    ],
)  # fmt: skip
def test_more_seeds_are_proposed_and_more_data(command, seeds, wanted):
    contenders = (Contender("random", "random", ""), Contender("a", "strategy", "random"))
    answers = {
        arm: np.repeat([np.arange(40) < share], 2, axis=0) + 0.0
        for arm, share in (("random", 20), ("a", 21))
    }
    values = dict.fromkeys(answers, (0.5, 0.5))
    task = Task("t", "acc", 0.25, 40, True, True, values, answers)
    found = find(contenders, [task])
    summary = Summary("s", found, {}, (), seeds, command, "", {})
    steps = dict(next_steps(summary))
    assert next(iter(steps.values()), None) == wanted
    costs = {arm: ArmCost({}, {}, 80, None) for arm in answers}
    more = dict(next_steps(replace(summary, costs=costs))).get("Does it hold with more data?")
    assert (more is not None) == (wanted is not None)
    assert more is None or shlex.split(more)[-1] == "compare.budget=[80,160]"
    costs["a"] = ArmCost({}, {}, 81, None)  # as with a budget in tokens
    assert "Does it hold with more data?" not in dict(next_steps(replace(summary, costs=costs)))

"""Which nodes a recipe makes: what it names last, and what that reads."""

import json
from itertools import pairwise

import pytest

HEAD = 'format = 1\nname = "fake"\nseed = 7\n'
POOL = '[pool]\nuse = "jsonl"\npath = "pool.jsonl"\n'
CONVERT = '[convert]\nuse = "fake-convert"\nmodel = "./base"\n'
WARMUP = '[warmup]\nuse = "fake-train"\n'
GIVEN = WARMUP + 'model = "./base"\n'
SCORE = '[score]\nuse = "length"\n'
SELECT = '[select]\nuse = "top-k"\nk = 3\n'


def keys(project, text, *arguments):
    project.recipe.write_text(HEAD + text)
    said = project.call("plan", "recipe.toml", "--json", *arguments)
    assert said.code == 0, said.err
    return [node["key"] for node in json.loads(said.out)["nodes"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (POOL, ["pool"]),
        (POOL + CONVERT, ["convert"]),
        (POOL + GIVEN, ["pool", "warmup"]),
        (POOL + CONVERT + WARMUP, ["pool", "convert", "warmup"]),
        (POOL + CONVERT + GIVEN, ["pool", "warmup"]),
        (POOL + CONVERT + WARMUP + SCORE, ["pool", "score"]),
        (POOL + SCORE, ["pool", "score"]),
        (POOL + SCORE + SELECT, ["pool", "score", "select"]),
        (POOL + '[evaluate]\nuse = "fake-eval"\nmodel = "./base"\n', ["evaluate"]),
    ],
)
def test_what_a_recipe_names_last_is_made(project, text, expected):
    assert keys(project, text) == expected


def test_a_run_that_ends_with_the_warmup_warms_up(project):
    project.recipe.write_text(HEAD + POOL + CONVERT + WARMUP)
    said = project.run()
    assert said.code == 0, said.err
    assert "train 40" in project.calls()
    assert (project.runs()[-1] / "artifacts" / "warmup" / "model" / "rows").is_file()


def test_a_run_of_a_pool_alone_makes_the_pool(project):
    project.recipe.write_text(HEAD + POOL)
    said = project.run()
    assert said.code == 0, said.err
    assert (project.runs()[-1] / "artifacts" / "pool" / "pool.json").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POOL + WARMUP, "[warmup]: needs a table [convert]"),
        (POOL + SELECT, "[select]: needs a table [score]"),
        (POOL + '[train]\nuse = "fake-train"\nmodel = "./base"\n', "[train]: needs a table"),
        (POOL + '[evaluate]\nuse = "fake-eval"\n', "[evaluate]: no model to start from"),
        (POOL + '[score]\nuse = "fake-score"\nreads_model = true\n', "fake-score needs a model"),
    ],
)
def test_a_stage_whose_input_is_missing_is_an_error(project, text, message):
    project.recipe.write_text(HEAD + text)
    said = project.run()
    assert said.code == 2
    assert message in said.err


def test_until_a_stage_that_the_recipe_does_not_have_is_an_error(project):
    project.recipe.write_text(HEAD + POOL + SCORE)
    said = project.call("plan", "recipe.toml", "--until", "train")
    assert said.code == 2
    assert "--until train: the recipe has no [train]" in said.err
    assert "Hint: the stages of this recipe: pool, score" in said.err


# ------------------------------------------------------------------------- scores that read scores


def blend(name, *reads):
    return f'[score.{name}]\nuse = "blend"\nscores = {json.dumps(reads)}\n'


LENGTHS = '[score.words]\nuse = "length"\n[score.letters]\nuse = "length"\nunit = "characters"\n'


def test_a_blend_may_read_another_blend_whatever_stands_first(project):
    text = POOL + blend("all", "both", "chance") + blend("both", "words", "letters") + LENGTHS
    text += '[score.chance]\nuse = "random"\n' + SELECT + 'score = "all"\n'
    found = keys(project, text)
    assert set(found) == {
        "pool", "score:all", "score:both", "score:words", "score:letters", "score:chance", "select",
    }  # fmt: skip
    assert found.index("score:both") < found.index("score:all")
    assert found.index("score:letters") < found.index("score:both")
    said = project.run()
    assert said.code == 0, said.err
    assert (project.runs()[-1] / "artifacts" / "score-all" / "scores").is_dir()


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        (blend("a", "a", "words"), "[score.a]: the score reads itself: a reads a"),
        (blend("a", "b", "words") + blend("b", "c", "words") + blend("c", "a", "words"), "reads"),
    ],
)
def test_scores_that_read_one_another_are_an_error(project, text, circle):
    project.recipe.write_text(HEAD + POOL + text + LENGTHS + SELECT + 'score = "a"\n')
    said = project.call("plan", "recipe.toml")
    assert said.code == 2
    assert said.err.count("Error:") == 1
    assert circle in said.err
    assert "there is no" not in said.err
    if "[score.c]" in text:  # each reads the next one
        line = said.err.splitlines()[0].partition("itself: ")[2]
        names = line.split(" reads ")
        assert names[0] == names[-1]
        assert set(pairwise(names)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_blend_of_a_score_with_a_mistake_says_the_mistake_alone(project):
    text = POOL + blend("mix", "words", "wrong") + LENGTHS
    project.recipe.write_text(HEAD + text + '[score.wrong]\nuse = "length"\nunits = "words"\n')
    said = project.call("plan", "recipe.toml")
    assert said.code == 2
    assert said.err.count("Error:") == 1
    assert "unknown option 'units'" in said.err


def test_a_named_score_to_select_by_where_there_is_one_without_a_name(project):
    project.recipe.write_text(HEAD + POOL + SCORE + SELECT + 'score = "words"\n')
    said = project.call("plan", "recipe.toml")
    assert said.code == 2
    assert "there is no [score.words]" in said.err
    assert "remove 'score' from [select]" in said.err

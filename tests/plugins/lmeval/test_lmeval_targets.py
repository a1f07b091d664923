"""Target examples from the tasks of an evaluation: never those that it asks."""

import json
from dataclasses import replace

import pytest
from llama_models import job
from lmeval_tasks import TASK, config, made_questions, offline, write_tasks

from selectmoe_core import RawExample, RecipeError
from selectmoe_lmeval.config import LmEvalTargetsConfig
from selectmoe_lmeval.evaluator import LmEval
from selectmoe_lmeval.plugin import selectmoe_readers
from selectmoe_lmeval.targets import LmEvalTargets

WINO = """
task: beginnings
dataset_path: json
dataset_kwargs:
  data_files:
    test: beginnings.jsonl
    train: more.jsonl
output_type: multiple_choice
test_split: test
training_split: train
doc_to_text: label
doc_to_choice: beginnings
doc_to_target: end
metric_list:
  - metric: acc
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    text = TASK.format(name="split", file="split.jsonl")
    text = text.replace(
        "    test: split.jsonl", "    test: split.jsonl\n    validation: valid.jsonl"
    )
    (folder / "split.yaml").write_text(text + "validation_split: validation\n")
    for name, seed in (("split", 5), ("valid", 6)):
        lines = [json.dumps(row) for row in made_questions(20, 3, seed)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "beginnings.yaml").write_text(WINO)
    for name, end in (("beginnings", "fell over."), ("more", "stood up.")):
        row = {"beginnings": ["The cup", "The tin"], "end": end, "label": 1}
        (folder / f"{name}.jsonl").write_text(json.dumps(row))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_hub(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("cache")):
        yield


def read(folder, tmp_path, *tasks, seed=1, **options):
    part = LmEvalTargets(LmEvalTargetsConfig(tasks=tasks, include_path=(folder,), **options))
    made = replace(job(tmp_path, None), bundled_tasks={}, seed=seed)
    part.check(made)
    found = list(part.read(made))
    assert all(isinstance(row, RawExample) for row in found)
    return [(row.source, *(message.content for message in row.messages)) for row in found]


def expected(folder, name, task):
    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return {
        (task, f"Question: {row['question']}\nAnswer:", row["choices"][row["answer"]])
        for row in rows
    }


def asked(folder, tmp_path, *tasks, **options):
    part = LmEval(config(folder, *tasks, **options))
    found = part.questions(replace(job(tmp_path, None), bundled_tasks={}))
    return [(question.task, question.text) for question in found]


def test_the_validation_split_is_taken_where_the_test_split_is_asked(folder, tmp_path):
    found = read(folder, tmp_path, "split", examples=99)
    assert set(found) == expected(folder, "valid", "split")
    some = read(folder, tmp_path, "split", examples=7)
    assert len(some) == 7
    assert set(some) < set(found)
    assert some == read(folder, tmp_path, "split", examples=7)
    assert some != read(folder, tmp_path, "split", examples=7, seed=2)


def test_what_is_held_back_is_not_asked(folder, tmp_path):
    given = read(folder, tmp_path, "fours", "twos", split="held-back", examples=5)
    assert len(given) == 10
    whole = asked(folder, tmp_path, "both")
    left = asked(folder, tmp_path, "both", held_back=5)
    assert len(left) == len(whole) - 10
    assert {(task, prompt) for task, prompt, _ in given} == set(whole) - set(left)
    assert set(given) <= expected(folder, "fours", "fours") | expected(folder, "twos", "twos")
    fewer = read(folder, tmp_path, "fours", split="held-back", examples=2)
    assert set(fewer) < set(given)


def test_a_question_that_is_there_twice_is_not_held_back(folder, tmp_path):
    rows = [json.loads(line) for line in (folder / "twos.jsonl").read_text().splitlines()]
    rows += [{**row, "question": row["question"].upper() + " "} for row in rows[:9]]
    text = TASK.format(name="again", file="again.jsonl")
    (folder / "again.yaml").write_text(text)
    (folder / "again.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = read(folder, tmp_path, "again", split="held-back", examples=3)
    expected = {f"Question: {row['question']}\nAnswer:" for row in rows[9:12]}
    assert {prompt for _, prompt, _ in given} == expected
    with pytest.raises(RecipeError, match="has 21 questions, and 3 that no other one asks"):
        read(folder, tmp_path, "again", split="held-back", examples=4)


def test_an_answer_completes_the_right_beginning(folder, tmp_path):
    options = {"split": "train", "allow_task_code": True}
    assert read(folder, tmp_path, "beginnings", **options) == [
        ("beginnings", "The tin", "stood up.")
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "[targets] lm-eval: the task 'fours' has no split that is not evaluated"),
        ({"split": "train"}, "[targets] lm-eval: the task 'fours' has no split 'train'"),
        ({"split": "held-back", "examples": 30}, "the task 'fours' has 30 questions"),
    ],
)
def test_without_another_split_it_says_what_to_do(folder, tmp_path, options, says):
    with pytest.raises(RecipeError) as caught:
        read(folder, tmp_path, "fours", **options)
    assert says in str(caught.value)
    assert caught.value.hint


def test_an_unknown_task_is_one_of_targets(folder, tmp_path):
    with pytest.raises(RecipeError, match=r"\[targets\] lm-eval: there is no task 'fuors'"):
        read(folder, tmp_path, "fuors")


def test_the_component_draws_and_runs_apart():
    [component] = selectmoe_readers()
    assert (component.seeded, component.torch) == (True, True)


RECIPE = """
format = 1
name = "aimed"

[pool]
use = "jsonl"
path = "pool.jsonl"

[targets]
use = "lm-eval"
tasks = ["fours"]
split = "held-back"
examples = 5
include_path = ["{folder}"]

[embed]
use = "fake-embed"

[score]
use = "fake-near"

[select]
use = "top-fraction"
fraction = 0.25

[train]
use = "fake-slow-train"
model = "./base"

[evaluate]
use = "lm-eval"
tasks = ["fours"]
include_path = ["{folder}"]
"""


def test_a_run_compares_the_targets_that_it_reads_in_a_process_of_their_own(project, folder):
    project.recipe.write_text(RECIPE.format(folder=folder))
    said = project.run("--device", "cpu")
    assert said.code == 2, said.err
    assert "[targets] 5 of 5 examples are questions that the evaluation asks (fours)" in said.err
    said = project.run("--device", "cpu", "evaluate.held_back=4")
    assert "[targets] 1 of 5 examples are questions" in said.err
    said = project.run("--device", "cpu", "evaluate.held_back=5")
    assert "questions that the evaluation asks" not in said.err

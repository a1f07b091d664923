"""The questions that an evaluation asks, as filters read them."""

import json
from dataclasses import replace

import pytest
from llama_models import job
from lmeval_tasks import config, offline, questions_of, write_tasks

from selectmoe_core import Question
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.evaluator import LmEval
from selectmoe_lmeval.plugin import selectmoe_evaluators

BEGINNINGS = """
task: beginnings
dataset_path: json
dataset_kwargs:
  data_files:
    test: beginnings.jsonl
output_type: multiple_choice
test_split: test
doc_to_text: label
doc_to_choice: beginnings
doc_to_target: end
metric_list:
  - metric: acc
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    (folder / "beginnings.yaml").write_text(BEGINNINGS)
    row = {"beginnings": ["The cup", "The tin"], "end": "fell over.", "label": 1}
    (folder / "beginnings.jsonl").write_text(json.dumps(row))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_hub(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("cache")):
        yield


def test_every_question_of_every_task_comes_with_its_choices(folder, tmp_path):
    part = LmEval(config(folder, "both", limit=2, num_fewshot=3))
    made = replace(job(tmp_path, None), bundled_tasks={})
    expected = {
        Question(
            name, f"Question: {row['question']}\nAnswer:", tuple(dict.fromkeys(row["choices"]))
        )
        for name in ("fours", "twos")
        for row in questions_of(folder, name)
    }
    found = list(part.questions(made))
    assert set(found) == expected
    assert len(found) == 42


def test_choices_that_are_beginnings_make_whole_sentences(folder, tmp_path):
    made = replace(job(tmp_path, None), bundled_tasks={})
    [found] = LmEval(config(folder, "beginnings", allow_task_code=True)).questions(made)
    assert (found.text, found.answers) == ("The cup fell over.", ("The tin fell over.",))


def test_options_that_change_no_question_are_left_out():
    [component] = selectmoe_evaluators()
    many = {"limit": 3, "num_fewshot": 2, "batch_size": 4, "apply_chat_template": True}
    plain = LmEvalConfig(tasks=("sciq",), allow_task_code=True)
    assert component.questions(plain.model_copy(update=many)) == plain
    assert component.questions(LmEvalConfig(tasks=("piqa",))) != plain

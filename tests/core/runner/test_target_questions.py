"""Target examples that the evaluation asks are an error before the first stage."""

import json

import pytest
from conftest import write_rows

from selectmoe_core.runner.target_questions import words

TABLES = '\n[targets]\nuse = "jsonl"\npath = "targets.jsonl"\n'
LONG = "Which of these gases do green plants take from the air around them?"


@pytest.fixture
def aimed(project):
    project.recipe.write_text(project.recipe.read_text() + TABLES + '[embed]\nuse = "fake-embed"\n')
    project.edit('use = "fake-score"\nreads_model = true\nshard_examples = 8', 'use = "fake-near"')
    project.edit('use = "fake-eval"', 'use = "fake-child-eval"')
    return project


def targets(project, *prompts):
    rows = [
        {
            "dataset": "science",
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": f"An answer of its own, {number}."},
            ],
        }
        for number, prompt in enumerate(prompts)
    ]
    write_rows(project.folder / "targets.jsonl", rows)


@pytest.mark.parametrize(
    "prompt",
    [
        "Question 1",
        "  question\n1!?",  # neither case nor marks nor white space matter
        f"Answer this. {LONG}",  # a long question inside
        LONG.removeprefix("Which "),  # a part of a long question
    ],
)
def test_a_target_that_is_asked_ends_the_run_at_once(aimed, prompt):
    targets(aimed, "Something else entirely", prompt)
    said = aimed.run(f"evaluate.asks={json.dumps(['Question 0', 'Question 1', LONG])}")
    assert said.code == 2, said.err
    assert "[targets] 1 of 2 examples are questions that the evaluation asks" in said.err
    assert "(letters)" in said.err
    assert "held_back" in said.err
    assert not list(aimed.store.glob("*/artifact.json"))


@pytest.mark.parametrize(
    "prompt", ["Question 11", "Which of these gases do green plants like?", "Question"]
)
def test_others_may_be_targets(aimed, prompt):
    targets(aimed, prompt, "And a second one")
    said = aimed.run(f"evaluate.asks={json.dumps(['Question 1', LONG])}")
    assert said.code == 0, said.err


def test_a_later_evaluation_that_asks_a_target_is_found(aimed):
    targets(aimed, "Question 1", "And a second one")
    assert aimed.run('evaluate.asks=["Question 2"]').code == 0
    said = aimed.run('evaluate.asks=["Question 1"]')
    assert said.code == 2
    assert "the first is: 'Question 1'" in said.err


def test_without_an_evaluation_nothing_is_compared(aimed):
    targets(aimed, "Question 1", "And a second one")
    said = aimed.run('evaluate.asks=["Question 1"]', "--until", "select")
    assert said.code == 0, said.err
    assert "questions" not in aimed.calls()


def test_each_set_of_targets_of_a_comparison_is_compared(aimed):
    targets(aimed, "Something else entirely", "And a second one")
    (aimed.folder / "targets.jsonl").rename(aimed.folder / "good.jsonl")
    targets(aimed, "Question 1", "And a second one")
    text = aimed.recipe.read_text().replace('path = "targets.jsonl"', 'path = "good.jsonl"')
    more = '[compare.strategies.good]\n[compare.strategies.asked]\ntargets.path = "targets.jsonl"\n'
    aimed.recipe.write_text(f"{text}\n{more}")
    said = aimed.call("compare", "recipe.toml", 'evaluate.asks=["Question 1"]')
    assert said.code == 2, said.err
    assert "[targets] 1 of 2 examples are questions that the evaluation asks" in said.err


def test_words_are_compared_without_case_and_marks():
    assert words("Größe: 3.5 (ÄPFEL)?") == ["grösse", "3", "5", "äpfel"]

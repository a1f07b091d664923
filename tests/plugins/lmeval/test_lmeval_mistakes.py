"""Mistakes in a user's own task are found before the first stage, by file and field."""

import json
import re

import pytest
from llama_models import job, llama
from lmeval_tasks import config, evaluate, made_questions, offline

from selectmoe_core.errors import RecipeError, StageError
from selectmoe_core.models.models import TargetModel
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.evaluator import LmEval
from selectmoe_lmeval.tasks import leaves, load_tasks

GENERATE = """
task: birds
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOOSE = """
task: birds
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module", autouse=True)
def no_hub(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


def rows(folder, change=lambda row, number: None, count=9, name="rows.jsonl"):
    made = made_questions(count, 3, seed=count)
    for number, row in enumerate(made):
        change(row, number)
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in made))
    return made


def task(folder, text=CHOOSE, *changes, name="birds.yaml"):
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / name).write_text(text)


def found(folder, *names, **options):
    """Return the error of the check before the first stage."""
    with pytest.raises((RecipeError, StageError)) as caught:
        LmEval(config(folder, *(names or ("birds",)), **options)).check(job(folder))
    return str(caught.value), caught.value.hint


def check(folder, *names, **options):
    LmEval(config(folder, *(names or ("birds",)), **options)).check(job(folder))


def put(key, value):
    def change(row, number):
        row[key] = value(number) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        (put("answer", 7), "9 of 9 answers are not among the choices", "from 0"),
        (put("answer", lambda n: 3 if n == 8 else 0), "1 of 9 answers .* row 9: 3", "from 0"),
        (put("answer", -1), "row 1: -1", "from 0"),
        (put("answer", lambda n: 1 + n % 3), "row 3: 3", 'doc_to_target: "{{answer - 1}}"'),
        (put("answer", lambda n: "ABC"[n % 3]), "row 1: 'A'", "{{'ABC'.index(answer)}}"),
        (put("answer", lambda n: "cab"[n % 3] * 1 + ")"), "row 1: 'c\\)'", "from 0"),
        (put("answer", lambda n: str(n % 3)), "row 1: '0'", "{{answer | int}}"),
        (put("answer", None), "row 1: None", "from 0"),
        (put("choices", lambda n: ["", "x"]), "doc_to_choice: row 1: a choice is empty", "two"),
        (put("choices", lambda n: ["x"]), "doc_to_choice: row 1: 1 choices", "two"),
        (put("choices", lambda n: "yes no"), "must be a list, got 'yes no'", "two"),
        (put("choices", lambda n: [1, 2, 3]), "not all texts", "two"),
    ],
)
def test_answers_and_choices(tmp_path, change, said, hint):
    rows(tmp_path, change)
    task(tmp_path)
    text, advice = found(tmp_path)
    assert re.search(said, text)
    assert "birds.yaml" in text
    assert hint in advice


def test_the_hint_for_letters_is_right(tmp_path, base):
    made = rows(tmp_path, put("answer", lambda n: "CAB"[n % 3]))
    task(tmp_path)
    _, hint = found(tmp_path)
    fixed = hint.partition("doc_to_target: ")[2]
    task(tmp_path, CHOOSE, ("doc_to_target: answer", f"doc_to_target: {fixed}"))
    check(tmp_path)
    (loaded,) = leaves(load_tasks(config(tmp_path, "birds"), {}))
    answers = [loaded.doc_to_target(doc) for doc in loaded.eval_docs]
    assert answers == ["ABC".index(row["answer"]) for row in made]


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        (("test_split: test", "test_split: dev"), "test_split: there is no split 'dev'", "test"),
        (("doc_to_text: ", "doc_to_txt: "), "unexpected keyword|doc_to_text", ""),
        (("{{question}}", "{{qestion}}"), "doc_to_text: row 1: 'qestion' is undefined", "question"),
        (("{{question}}", "{{question"), "doc_to_text: row 1: ", "question"),
        (("doc_to_choice: choices\n", ""), "doc_to_choice: it is missing", "add"),
        (("doc_to_choice: choices", 'doc_to_choice: "{{nope}}"'), "doc_to_choice: row 1", "fields"),
        (("multiple_choice", "multiple_choices"), "no output type", "multiple_choice"),
        (("metric: acc,", "metric: accuracy,"), "no metric 'accuracy'", "acc"),
        (("metric: acc,", "metric: exact_macth,"), "no metric", "did you mean 'exact_match'?"),
        (("metric: acc,", "metric: bleu,"), "'bleu' is not computed for output_type", "acc|none"),
        (("aggregation: mean", "aggregation: maen"), "no aggregation 'maen'", "'mean'"),
        (("rows.jsonl", "none.jsonl"), "dataset_path, dataset_kwargs: the data cannot", "files"),
        (("dataset_path: json\n", ""), "dataset_path: it is missing", "data_files"),
        (("task: birds", "task: a/b"), "'a/b' cannot be part of a file name", "letters"),
        (("task: birds", "task: ../birds"), "cannot be part of a file name", "letters"),
    ],
)
def test_fields_of_the_yaml(tmp_path, change, said, hint):
    rows(tmp_path)
    task(tmp_path, CHOOSE, change)
    name = change[1].partition(": ")[2] if change[1].startswith("task: ") else "birds"
    text, advice = found(tmp_path, name)
    assert re.search(said, text), text
    assert re.search(hint, advice), advice
    assert "birds.yaml" in text


def test_data_without_rows(tmp_path):
    task(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    assert "rows.jsonl is empty" in found(tmp_path)[0]
    (tmp_path / "rows.jsonl").write_text("not json\n")
    assert "the data cannot be loaded" in found(tmp_path)[0]


def test_a_metric_that_does_not_fit_its_output_type(tmp_path):
    rows(tmp_path)
    task(tmp_path, GENERATE)
    check(tmp_path)
    task(tmp_path, GENERATE, ("metric: exact_match", "metric: acc"))
    text, _ = found(tmp_path)
    assert "metric_list" in text
    assert "acc" in text


def test_solved_examples(tmp_path, capsys):
    rows(tmp_path, count=6)
    task(tmp_path)
    check(tmp_path, num_fewshot=6)
    assert "no fewshot_split" in capsys.readouterr().err
    text, hint = found(tmp_path, num_fewshot=7)
    assert "num_fewshot = 7, but the task's data has 6 rows" in text
    assert "at most 6" in hint
    task(tmp_path, CHOOSE + "fewshot_split: test\n")
    check(tmp_path, num_fewshot=5)
    assert "num_fewshot = 6, but the split 'test' has 5 rows" in found(tmp_path, num_fewshot=6)[0]
    task(tmp_path, CHOOSE + "fewshot_split: train\nnum_fewshot: 1\n")
    assert "fewshot_split: there is no split 'train'" in found(tmp_path)[0]


def test_solved_examples_with_other_fields(tmp_path):
    rows(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": "a", "right": "b"}\n' * 4)
    both = "{test: rows.jsonl, train: train.jsonl}"
    shots = "fewshot_split: train\nnum_fewshot: 2\n"
    task(tmp_path, CHOOSE + shots, ("{test: rows.jsonl}", both))
    text, _ = found(tmp_path)
    assert "birds.yaml" in text


def test_members_of_a_group(tmp_path):
    rows(tmp_path)
    (tmp_path / "sub").mkdir()
    task(tmp_path)
    (tmp_path / "g.yaml").write_text("group: flock\ntask: [birds, bird]\n")
    text, hint = found(tmp_path, "flock")
    assert "g.yaml" in text
    assert "there is no task 'bird'" in text
    assert hint == "did you mean 'birds'?"
    (tmp_path / "g.yaml").write_text("group: flock\ntask: [birds, inner]\n")
    rows(tmp_path / "sub")
    task(tmp_path / "sub", CHOOSE, ("task: birds", "task: inner"))
    check(tmp_path, "flock")  # data beside each task, not beside the group
    rows(tmp_path / "sub", put("answer", 4))
    assert "sub/birds.yaml" in found(tmp_path, "flock")[0]


CODE = CHOOSE.replace('doc_to_text: "{{question}}"', "doc_to_text: !function own.text")


def test_code_of_a_task_runs_only_when_it_is_allowed(tmp_path):
    rows(tmp_path)
    task(tmp_path, CODE)
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(
        f"open({str(ran)!r}, 'w')\ndef text(doc):\n    return doc['question']\n"
    )
    text, hint = found(tmp_path)
    assert "doc_to_text: it runs Python code (own.text)" in text
    assert "allow_task_code = true" in hint
    with pytest.raises(RecipeError, match="allow_task_code is off"):
        load_tasks(config(tmp_path, "birds"), {})
    assert not ran.exists()
    check(tmp_path, allow_task_code=True)
    assert ran.exists()


@pytest.mark.parametrize(
    "where", ["include: base.yaml\n", "fewshot_config: {process_docs: !function own.text}\n"]
)
def test_code_in_an_included_or_nested_place_is_code(tmp_path, where):
    rows(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')\n")
    (tmp_path / "base.yaml").write_text("process_docs: !function own.text\n")
    task(tmp_path, CHOOSE + where)
    assert "allow_task_code is off" in found(tmp_path)[0]


def test_a_group_and_a_metric_are_gates_too(tmp_path):
    rows(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')\n")
    task(tmp_path)
    (tmp_path / "g.yaml").write_text("group: flock\ntask: [birds]\nx: !function own.text\n")
    assert "allow_task_code is off" in found(tmp_path, "flock")[0]
    task(tmp_path, CHOOSE, ("metric: acc,", "metric: acc, hf_evaluate: true,"))
    text, hint = found(tmp_path)
    assert "hf_evaluate" in text
    assert "allow_task_code = true" in hint


def test_a_template_runs_no_code(tmp_path):
    rows(tmp_path)
    reach = "{{ cycler.__init__.__globals__.os.getcwd() }}"
    task(tmp_path, CHOOSE, ("{{question}}", reach))
    assert "doc_to_text" in found(tmp_path)[0]
    check(tmp_path, allow_task_code=True)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "there is no module for own.text"),
        ("def text(doc:\n", "own.text is not Python: .*own.py, line 1"),
        ("def other(doc): pass\n", "has no function 'text'"),
        ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"),
        ("def text(doc):\n    return doc['nope']\n", r"row 1: KeyError: 'nope' \(own.py, line 2\)"),
    ],
)
def test_code_that_cannot_be_used(tmp_path, code, said):
    rows(tmp_path)
    task(tmp_path, CODE)
    if code is not None:
        (tmp_path / "own.py").write_text(code)
    text, _ = found(tmp_path, allow_task_code=True)
    assert re.search(said, text), text
    assert "birds.yaml" in text
    assert "doc_to_text" in text


def test_names_of_tasks(tmp_path):
    assert LmEvalConfig(tasks="a, b").tasks == LmEvalConfig(tasks=["a,b"]).tasks == ("a", "b")
    rows(tmp_path)
    task(tmp_path)
    text, hint = found(tmp_path, "brids")
    assert "there is no task 'brids'" in text
    assert hint == "did you mean 'birds'?"


def test_questions_that_do_not_fit_and_chance_are_said(tmp_path, base, capsys):
    short = llama(tmp_path / "short", max_position_embeddings=12)
    rows(tmp_path)
    task(tmp_path)
    part = LmEval(config(tmp_path, "birds"))
    part.check(job(tmp_path, short))
    assert "questions of birds have up to" in capsys.readouterr().err
    part.check(job(tmp_path, base))
    assert capsys.readouterr().err == ""
    rows(tmp_path, put("answer", lambda n: n % 3), count=12)
    facts = evaluate(TargetModel(base), tmp_path / "out", config(tmp_path, "birds"))
    at_chance = facts["tasks"]["birds"]["at_chance"]
    assert at_chance == any("birds is at chance" in text for text in facts.get("warnings", ()))


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        (GENERATE, ("max_gen_toks: 4", "max_gen_toks: few"), "generation_kwargs: ValueError"),
        (GENERATE, ("metric_list", "filter_list: [{name: a}]\nmetric_list"), "birds.yaml"),
        (CHOOSE, ("multiple_choice", "loglikelihood"), "doc_to_target: it must give text"),
        (CHOOSE, ("test_split", "num_fewshot: many\ntest_split"), "num_fewshot: 'many' is not"),
        (CHOOSE, ("task: birds", "task: 7"), "task: 7 is not a name"),
    ],
)
def test_what_only_the_evaluation_would_meet(tmp_path, text, change, said):
    rows(tmp_path)
    task(tmp_path, text, change)
    assert said in found(tmp_path)[0]

import os
from dataclasses import replace
from pathlib import Path

import pytest
from llama_models import job, llama
from lmeval_tasks import config, evaluate, offline, samples_of, write_tasks

from selectmoe_core.errors import RecipeError, StageError
from selectmoe_core.models.models import TargetModel
from selectmoe_lmeval import building
from selectmoe_lmeval import tasks as finding
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.evaluator import LmEval

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("SELECTMOE_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module", autouse=True)
def no_hub(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


def test_bundled_tasks(base, folder, tmp_path):
    made = replace(job(tmp_path, base), bundled_tasks={"tiny": folder})
    out = tmp_path / "out"
    part = LmEval(LmEvalConfig(tasks=("bundled:tiny",), limit=2))
    part.check(made)
    assert set(part.evaluate(TargetModel(base), out, made)["tasks"]) == {"fours", "twos"}
    one = LmEval(LmEvalConfig(tasks=("bundled:tiny/twos",), limit=2))
    assert set(one.evaluate(TargetModel(base), out, made)["tasks"]) == {"twos"}
    for name, hint in (("bundled:tiyn", "tiny"), ("bundled:tiny/twso", "twos")):
        with pytest.raises(RecipeError) as caught:
            LmEval(LmEvalConfig(tasks=(name,))).check(made)
        assert hint in caught.value.hint


@pytest.fixture(scope="module")
def small_harness(folder, tmp_path_factory):
    """The harness with only a few of its tasks: the whole takes seconds to read."""
    root = tmp_path_factory.mktemp("harness")
    for name in ("hellaswag", "sciq"):
        (root / name).mkdir()
        for path in (finding.HARNESS / name).iterdir():
            if path.suffix in (".yaml", ".py"):
                (root / name / path.name).write_bytes(path.read_bytes())
    (root / "over").mkdir()
    (root / "over" / "g.yaml").write_text("group: over\ntask: [sciq, hellaswag]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "HARNESS", root)
        patch.setattr(building, "HARNESS", root)
        finding._harness_names.cache_clear()
        finding._harness_index.cache_clear()
        yield root
    finding._harness_names.cache_clear()
    finding._harness_index.cache_clear()


def test_a_wrong_name_is_found_before_anything_is_loaded(small_harness, folder, tmp_path):
    with pytest.raises(RecipeError, match="there is no task 'helaswag'") as caught:
        LmEval(config(folder, "fours", "helaswag")).check(job(tmp_path))
    assert caught.value.hint == "did you mean 'hellaswag'?"
    with pytest.raises(RecipeError, match="no folder"):
        LmEval(config(tmp_path / "nowhere", "fours")).check(job(tmp_path))


def test_only_the_folder_of_a_task_is_read(small_harness, tmp_path):
    (one,) = finding.find_tasks(LmEvalConfig(tasks=("sciq",)), {})
    assert one.folders == (small_harness / "sciq",)
    (whole,) = finding.find_tasks(LmEvalConfig(tasks=("over",)), {})
    assert whole.folders == (small_harness,)


def test_data_that_cannot_be_had(small_harness, base, tmp_path):
    part = LmEval(LmEvalConfig(tasks=("sciq",)))
    for act in (
        lambda: part.check(job(tmp_path, base)),
        lambda: part.evaluate(TargetModel(base), tmp_path / "out", job(tmp_path, base)),
    ):
        with pytest.raises(StageError, match="the task 'sciq' cannot be loaded") as caught:
            act()
        assert "HF_HUB_OFFLINE" in caught.value.hint


def test_a_yaml_that_cannot_be_read(folder, tmp_path):
    (tmp_path / "bad.yaml").write_text("task: [unclosed\n")
    with pytest.raises(RecipeError, match=r"bad\.yaml: not the YAML of a task"):
        LmEval(config(tmp_path, "fours")).check(job(tmp_path))


def test_a_row_that_does_not_fit_its_template(base, folder, tmp_path):
    for name in ("twos.jsonl", "twos.yaml"):
        (tmp_path / name).write_text((folder / name).read_text())
    text = (tmp_path / "twos.yaml").read_text()
    (tmp_path / "twos.yaml").write_text(text.replace("{{question}}", "{{context.strip()}}"))
    part = LmEval(config(tmp_path, "twos"))
    with pytest.raises(RecipeError, match=r"twos\.yaml.*doc_to_text: row 1: 'context'") as caught:
        part.check(job(tmp_path, base))
    assert caught.value.hint == "the row has the fields id, question, choices, answer"


LOCAL = ROOT / "recipes" / "tasks" / "local_eval"


@pytest.mark.skipif(not (DATA / "eval").is_dir(), reason="no real data: set SELECTMOE_DATA")
def test_the_local_tasks_over_real_data(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SELECTMOE_DATA", str(DATA))
    names = ("arc_easy_local", "sciq_local", "hellaswag_local", "piqa_local")
    chosen = config(LOCAL, *names, limit=2, allow_task_code=True)
    facts = evaluate(TargetModel(base), tmp_path / "out", chosen)
    assert {name: task["chance"] for name, task in facts["tasks"].items()} == {
        "arc_easy_local": 0.25,
        "sciq_local": 0.25,
        "hellaswag_local": 0.25,
        "piqa_local": 0.5,
    }
    prompt = samples_of(tmp_path / "out", "arc_easy_local")[0]["arguments"]["gen_args_0"]["arg_0"]
    assert prompt.startswith("Question: Which statement")
    assert prompt.endswith("\nAnswer:")


def test_the_local_tasks_without_data_say_what_to_set(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SELECTMOE_DATA", str(tmp_path))
    with pytest.raises(StageError, match="set SELECTMOE_DATA"):
        evaluate(
            TargetModel(base), tmp_path / "out", config(LOCAL, "piqa_local", allow_task_code=True)
        )

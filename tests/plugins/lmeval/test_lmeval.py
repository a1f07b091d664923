import json
import logging
import random
import sys

import datasets
import lm_eval.evaluator
import numpy as np
import pytest
import torch
from llama_models import Examples, example, job, llama, tokenizer
from lmeval_tasks import TASK, config, evaluate, offline, questions_of, samples_of, write_tasks
from torch.nn.functional import log_softmax

from selectmoe_core import Need
from selectmoe_core.errors import StageError
from selectmoe_core.models.models import TargetModel
from selectmoe_core.runtime.progress import NoProgress
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.trainer import LlamaLora
from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.harness import quiet
from selectmoe_lmeval.plugin import selectmoe_evaluators
from selectmoe_lmeval.results import primary, summarise


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


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    made = job(folder, base)
    config = LoraTrainingConfig(
        batch_size=4,
        lora_rank=4,
        lora_alpha=16.0,
        learning_rate=0.05,
        max_steps=3,
        warmup_ratio=0.0,
    )
    source = Examples(
        [example(f"{n} abc?", "deg hab") for n in range(8)], folder / "tokens", made.chat
    )
    LlamaLora(config).train(base, source, folder / "model", made)
    return folder / "model"


@pytest.fixture(scope="module")
def evaluated(base, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    return evaluate(TargetModel(base), out, config(folder, "both")), out


def log_probabilities(model, questions):
    """Each choice alone, one forward pass, the plain sum."""
    tokens, found = tokenizer(), []
    for one in questions:
        start = tokens(f"Question: {one['question']}\nAnswer:")["input_ids"]
        of_choices = []
        for choice in one["choices"]:
            end = tokens(f" {choice}")["input_ids"]
            ids = torch.tensor([start + end])
            logs = log_softmax(model(ids).logits[0].double(), dim=-1)
            places = range(len(start) - 1, len(start) + len(end) - 1)
            of_choices.append(sum(logs[at, ids[0, at + 1]].item() for at in places))
        found.append(of_choices)
    return found


def plain_accuracies(model, questions):
    logs = log_probabilities(model, questions)
    plain = [int(np.argmax(found)) == q["answer"] for found, q in zip(logs, questions, strict=True)]
    normed = [
        int(np.argmax([x / len(c) for x, c in zip(found, q["choices"], strict=True)]))
        == q["answer"]
        for found, q in zip(logs, questions, strict=True)
    ]
    return logs, np.mean(plain), np.mean(normed)


@pytest.mark.parametrize("name", ["fours", "twos"])
def test_accuracy_and_likelihoods_equal_a_plain_computation(
    base, folder, evaluated, tmp_path, name
):
    facts, out = evaluated
    model = job(tmp_path).models.load(base, dtype="float32", device="cpu")
    questions = questions_of(folder, name)
    logs, accuracy, normed = plain_accuracies(model, questions)
    found = facts["tasks"][name]
    assert (found["metric"], found["questions"]) == ("acc", len(questions))
    assert found["value"] == found["metrics"]["acc"]["value"] == pytest.approx(accuracy)
    assert found["metrics"]["acc_norm"]["value"] == pytest.approx(normed)
    expected = np.sqrt(accuracy * (1 - accuracy) / (len(questions) - 1))
    assert found["stderr"] == pytest.approx(expected)
    for one, row in zip(samples_of(out, name), logs, strict=True):
        assert [float(r[0][0]) for r in one["resps"]] == pytest.approx(row, abs=2e-3)


def test_a_group_is_the_mean_of_its_questions(evaluated):
    tasks = evaluated[0]["tasks"]
    assert set(tasks) == {"both", "fours", "twos"}
    fours, twos, both = tasks["fours"], tasks["twos"], tasks["both"]
    assert both["questions"] == 42
    assert both["value"] == pytest.approx((30 * fours["value"] + 12 * twos["value"]) / 42)
    assert both["chance"] == pytest.approx((30 * 0.25 + 12 * 0.5) / 42)


def test_a_random_model_is_at_chance(evaluated):
    for found, expected in (("fours", 0.25), ("twos", 0.5)):
        task = evaluated[0]["tasks"][found]
        assert task["chance"] == expected
        assert task["at_chance"] == (task["value"] - expected <= 2 * task["stderr"])
        assert task["at_chance"]


def test_a_model_above_chance_is_not_flagged(base, folder, evaluated, tmp_path):
    """Questions whose right answer is what the model gave."""
    own = tmp_path / "own"
    own.mkdir()
    questions = questions_of(folder, "fours")
    model = job(tmp_path).models.load(base, dtype="float32", device="cpu")
    for one, logs in zip(questions, log_probabilities(model, questions), strict=True):
        one["answer"] = int(np.argmax(logs))
    questions[0]["answer"] = (questions[0]["answer"] + 1) % 4
    (own / "easy.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (own / "easy.yaml").write_text(TASK.format(name="easy", file="easy.jsonl"))
    facts = evaluate(TargetModel(base), tmp_path / "out", config(own, "easy"))
    assert facts["tasks"]["easy"]["value"] == pytest.approx(29 / 30)
    assert not facts["tasks"]["easy"]["at_chance"]


def test_the_adapter_counts(base, adapter, folder, evaluated, tmp_path):
    out = tmp_path / "out"
    facts = evaluate(TargetModel(base, adapter), out, config(folder, "fours"))
    model = job(tmp_path).models.load_target(
        TargetModel(base, adapter), dtype="float32", device="cpu"
    )
    logs, accuracy, _ = plain_accuracies(model, questions_of(folder, "fours"))
    assert facts["tasks"]["fours"]["value"] == pytest.approx(accuracy)
    of_base = samples_of(evaluated[1], "fours")
    for one, row in zip(samples_of(out, "fours"), logs, strict=True):
        assert [float(r[0][0]) for r in one["resps"]] == pytest.approx(row, abs=2e-3)
    assert [o["resps"] for o in samples_of(out, "fours")] != [o["resps"] for o in of_base]
    (path,) = out.glob("results_*.json")
    assert json.loads(path.read_text())["model_name"] == str(adapter)


def test_the_batch_size_changes_nothing(base, folder, evaluated, tmp_path):
    facts = evaluate(TargetModel(base), tmp_path / "out", config(folder, "fours", batch_size=3))
    assert facts["tasks"]["fours"] == evaluated[0]["tasks"]["fours"]


def test_results_are_the_harness_own(evaluated, base):
    _, out = evaluated
    (path,) = out.glob("results_*.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    keys = {"results", "groups", "group_subtasks", "configs", "versions", "n-shot", "n-samples"}
    keys |= {"higher_is_better", "config", "git_hash", "date", "task_hashes", "model_name"}
    keys |= {"model_source", "chat_template", "total_evaluation_time_seconds"}
    keys |= {"pretty_env_info", "transformers_version", "tokenizer_eos_token", "max_length"}
    assert keys <= results.keys()
    assert "samples" not in results
    assert set(results["task_hashes"]) == {"fours", "twos"}
    assert {"acc,none", "acc_stderr,none", "alias"} <= results["results"]["fours"].keys()
    assert results["config"]["model_args"] == {"pretrained": base.location}
    first = samples_of(out, "fours")[0]
    assert {"doc_id", "doc", "target", "arguments", "resps", "doc_hash", "acc"} <= first.keys()
    assert first["arguments"]["gen_args_0"]["arg_0"].startswith("Question: ")
    assert len(datasets.load_dataset("json", data_files=str(next(out.glob("samples_f*"))))["train"])


def test_limit_and_no_samples(base, folder, tmp_path):
    out = tmp_path / "out"
    facts = evaluate(TargetModel(base), out, config(folder, "fours", limit=5, samples=False))
    assert facts["tasks"]["fours"]["questions"] == 5
    assert not list(out.glob("samples_*"))


def test_solved_examples_come_before_the_question(base, folder, tmp_path):
    out = tmp_path / "out"
    own = tmp_path / "own"
    own.mkdir()
    (own / "t.yaml").write_text(
        TASK.format(name="shots", file=folder / "fours.jsonl") + "fewshot_split: test\n"
    )
    evaluate(TargetModel(base), out, config(own, "shots", limit=2, num_fewshot=2))
    assert samples_of(out, "shots")[0]["arguments"]["gen_args_0"]["arg_0"].count("Question:") == 3


def test_an_attempt_that_was_cut_off_leaves_nothing(base, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results_2020-01-01T00-00-00.0.json").write_text("{")
    (out / "samples_fours_2020-01-01T00-00-00.0.jsonl").write_text("{")
    evaluate(TargetModel(base), out, config(folder, "fours", limit=3))
    assert len(list(out.glob("results_*.json"))) == 1
    assert len(samples_of(out, "fours")) == 3


def test_random_state_bars_loggers_and_output_stay_as_they_were(base, folder, tmp_path, capfd):
    logger = logging.getLogger("lm_eval")
    before = (
        logger.level,
        logger.propagate,
        list(logger.handlers),
        datasets.is_progress_bar_enabled(),
    )
    git = lm_eval.evaluator.get_git_commit_hash
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    capfd.readouterr()
    evaluate(TargetModel(base), tmp_path / "out", config(folder, "fours", limit=3))
    shown = capfd.readouterr()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    after = (
        logger.level,
        logger.propagate,
        list(logger.handlers),
        datasets.is_progress_bar_enabled(),
    )
    assert after == before
    assert lm_eval.evaluator.get_git_commit_hash is git
    assert shown.out == ""
    noise = [line for line in shown.err.splitlines() if "Loading weights" not in line]
    assert not [line for line in noise if "git" in line or "requests" in line or "WARN" in line]
    assert "Building contexts" in (tmp_path / "out" / "lm_eval.log").read_text()


class Counting(NoProgress):
    def __init__(self):
        self.total, self.done = 0, 0

    def task(self, label, total, unit="examples", done=0):
        self.total = total
        return super().task(label, total, unit)


def test_progress_is_the_jobs(base, folder, tmp_path):
    shown = Counting()
    evaluate(TargetModel(base), tmp_path / "o", config(folder, "fours", limit=3), progress=shown)
    assert shown.total == 12


def test_requests_that_do_not_fit_are_counted(tmp_path, folder):
    short = llama(tmp_path / "short", max_position_embeddings=20)
    facts = evaluate(TargetModel(short), tmp_path / "out", config(folder, "fours", limit=4))
    assert facts["truncated_requests"] > 0


def test_a_chat_template_that_is_not_there(base, folder, tmp_path):
    with pytest.raises(StageError, match="has no chat template"):
        evaluate(TargetModel(base), tmp_path, config(folder, "fours", apply_chat_template=True))


def test_questions_in_the_format_of_the_training(base, folder, tmp_path):
    options = config(folder, "fours", limit=5, num_fewshot=1, apply_chat_template="training")
    evaluate(TargetModel(base), tmp_path / "out", options)
    samples = samples_of(tmp_path / "out", "fours")
    assert len(samples) == 5
    for sample in samples:
        for at, choice in enumerate(sample["doc"]["choices"]):
            asked = sample["arguments"][f"gen_args_{at}"]
            assert asked["arg_1"] == choice
            context = asked["arg_0"]
            assert context.startswith("<|user|>\nQuestion: ")
            assert context.endswith(
                f"Question: {sample['doc']['question']}\nAnswer:\n<|assistant|>\n"
            )
    plain = tmp_path / "plain"
    evaluate(TargetModel(base), plain, config(folder, "fours", limit=5, num_fewshot=1))
    scores = [
        [one["filtered_resps"] for one in found] for found in (samples, samples_of(plain, "fours"))
    ]
    assert scores[0] != scores[1]


def test_only_questions_in_the_format_of_the_training_depend_on_it():
    (component,) = selectmoe_evaluators()
    needs = {
        value: Need.TOKENS in component.needs(LmEvalConfig(tasks=("t",), apply_chat_template=value))
        for value in (False, True, "training")
    }
    assert needs == {False: False, True: False, "training": True}


def test_the_metric_that_stands_for_a_task():
    both = {"acc": 1, "acc_norm": 2}
    assert primary("hellaswag", both) == primary("arc_easy_local", both) == "acc_norm"
    assert primary("sciq", both) == "acc"
    assert primary("hellaswag", {"acc": 1}) == "acc"
    assert primary("gsm8k", {"exact_match,strict-match": 1, "x": 2}) == "exact_match,strict-match"


def test_a_standard_error_that_is_not_a_number():
    results = {
        "results": {"t": {"alias": "t", "ppl,none": 3.5, "ppl_stderr,none": "N/A"}},
        "samples": {"t": []},
        "configs": {"t": {"output_type": "loglikelihood_rolling"}},
        "group_subtasks": {"t": []},
        "n-samples": {"t": {"original": 4, "effective": 4}},
        "higher_is_better": {"t": {"ppl": False}},
    }
    found = summarise(results)["t"]
    assert (found["value"], found["stderr"], found["chance"]) == (3.5, None, None)
    assert (found["higher_is_better"], found["at_chance"]) == (False, False)


def test_quiet_restores_even_when_it_fails(tmp_path):
    before = lm_eval.evaluator.get_git_commit_hash, sys.stdout
    with pytest.raises(ZeroDivisionError), quiet(job(tmp_path), None):
        1 / 0  # noqa: B018
    assert before == (lm_eval.evaluator.get_git_commit_hash, sys.stdout)

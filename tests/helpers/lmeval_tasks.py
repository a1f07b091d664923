"""Task folders for the harness, and evaluations of tiny models over them."""

import json
import random
from contextlib import contextmanager

import pytest
from llama_models import job

from selectmoe_lmeval.config import LmEvalConfig
from selectmoe_lmeval.evaluator import LmEval

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""


def made_questions(count, choices, seed):
    chosen = random.Random(seed)

    def word():
        return "".join(chosen.choices("abcdefgh", k=chosen.randint(1, 8)))

    return [
        {
            "id": f"q{number}",
            "question": f"{word()} {word()}?",
            "choices": [word() for _ in range(choices)],
            "answer": chosen.randrange(choices),
        }
        for number in range(count)
    ]


def write_tasks(folder):
    """Two tasks with data beside them, and a group of both."""
    for name, choices, count in (("fours", 4, 30), ("twos", 2, 12)):
        lines = [json.dumps(one) for one in made_questions(count, choices, choices)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=f"{name}.jsonl"))
    (folder / "both.yaml").write_text(
        "group: both\ntask: [fours, twos]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    return folder


def evaluate(model, out, config, **changes):
    return LmEval(config).evaluate(model, out, job(out, model.base, **changes))


def config(folder, *names, **options):
    return LmEvalConfig(tasks=names, include_path=(folder,), **options)


def questions_of(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def samples_of(out, task):
    (path,) = out.glob(f"samples_{task}_2*.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@contextmanager
def offline(cache):
    """No hub, and a cache of our own for what ``datasets`` builds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield

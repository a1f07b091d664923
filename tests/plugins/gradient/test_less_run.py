"""LESS from a recipe to scores, beside the slow reference."""

import json

import numpy as np
import pytest
import torch
from less_reference import less_scores, less_vectors
from llama_models import conversations, llama

from selectmoe_core.cli import call
from selectmoe_core.data import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.models.models import Models
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.training import kept_checkpoints

WIDTH, SEED = 256, 17
RECIPE = f"""
format = 1
name = "less"
seed = {SEED}
[chat]
max_length = 256
[pool]
use = "jsonl"
path = "pool.jsonl"
[targets]
use = "jsonl"
path = "targets.jsonl"
[warmup]
use = "llama-lora"
model = "base"
subset_ratio = 0.5
checkpoint_every = "epoch"
batch_size = 8
epochs = 2
learning_rate = 1e-2
lora_rank = 4
lora_alpha = 8
[embed]
use = "lora-gradients"
dimensions = {WIDTH}
[score]
use = "similarity"
per_task = "mean"
"""


def write(path, examples, sources):
    rows = [
        {
            "source": source,
            "messages": [{"role": m.role, "content": m.content} for m in example.messages],
        }
        for example, source in zip(examples, sources, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def by_key(folder):
    found = {}
    for path in (folder / "store").glob("*/artifact.json"):
        described = json.loads(path.read_text())
        if "key" in described.get("details", {}):
            found[described["details"]["key"]] = path.parent
    return found


def read(folder, base):
    """The examples of a pool as the reference wants them, its ids and its sources."""
    pool = Pool.open(folder)
    tokenizer = Models().tokenizer(base)
    chat = ChatFormat(ChatConfig(max_length=256))
    rows = []
    for example in chat.encode(list(pool.examples(0, len(pool))), tokenizer):
        counted = np.array(chat.counts(example.parts))
        counted[:1] = False
        ids = torch.from_numpy(np.array(example.ids, dtype=np.int64))
        rows.append((ids, torch.from_numpy(counted)))
    return rows, pool.source_names().to_pylist()


@pytest.mark.slow
def test_less_from_a_recipe_ranks_as_the_slow_reference_row_for_row(tmp_path):
    base = llama(tmp_path / "base")
    write(tmp_path / "pool.jsonl", conversations(28, seed=30), ["a", "b"] * 14)
    write(
        tmp_path / "targets.jsonl", conversations(7, seed=31), ["x", "x", "y", "y", "y", "z", "z"]
    )
    (tmp_path / "less.toml").write_text(RECIPE)
    out = tmp_path / "outputs"
    assert call(["run", str(tmp_path / "less.toml"), "--outputs", str(out)]) == 0

    made = by_key(out)
    checkpoints = kept_checkpoints(made["warmup"] / "checkpoints")
    assert [checkpoint.step for checkpoint in checkpoints] == [2, 4]
    how = {"kind": "count-sketch", "width": WIDTH, "seed": SEED, "rule": "paper"}
    network = Models().load(base, dtype="float32", device="cpu")
    pool, _ = read(made["pool"], base)
    targets, tasks = read(made["targets"], base)
    expected, by_task = less_scores(
        less_vectors(network, checkpoints, pool, pool=True, how=how),
        less_vectors(network, checkpoints, targets, pool=False, how=how),
        tasks,
        [checkpoint.mean_learning_rate for checkpoint in checkpoints],
    )
    table = ScoreTable.open(made["score"])
    np.testing.assert_allclose(table.score(), expected, atol=1e-3)
    assert np.argsort(-table.score()).tolist() == np.argsort(-expected).tolist()
    assert list(by_task) == ["x", "y", "z"]
    for task, scores in by_task.items():
        np.testing.assert_allclose(table.detail(f"task:{task}"), scores, atol=1e-3)
    assert len({scores.argmax() for scores in by_task.values()}) > 1  # the tasks differ
    assert np.ptp(expected) > 0.05

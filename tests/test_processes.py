"""The real stages on two processes of the CPU, with the nano models: what one process gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tree

from selectmoe_core.data.scores import ScoreTable

RECIPE = """\
format = 1
name = "two"
seed = 5
[chat]
max_length = 96
[pool]
use = "nano"
examples = 80
damaged = 0.4
[convert]
use = "olmoe-trashcan"
model = "bundled:nano-olmoe"
constraint_loss_weight = 0.05
[warmup]
use = "select-moe-contrastive"
lm_weight = 1.0
subset_ratio = 0.5
batch_size = {batch}
constraint_loss_weight = 0.05
max_steps = 6
learning_rate = 1e-3
[score]
use = "router"
shard_examples = 16
[select]
use = "top-fraction"
fraction = 0.3
[train]
use = "llama-lora"
model = "bundled:nano-llama"
batch_size = 8
epochs = 1
lora_rank = 4
lora_dropout = 0.0
[evaluate]
use = "lm-eval"
tasks = ["bundled:nano"]
limit = 3
"""
LOOSE = {"rtol": 2e-4, "atol": 2e-5}


TERMS = ("cross_entropy", "balance", "constraint", "bce", "margin", "trash_share")


def write_recipe(folder: Path, batch: int) -> None:
    (folder / "recipe.toml").write_text(RECIPE.format(batch=batch), encoding="utf-8")


def finished(folder: Path, stage: str) -> tuple[Path, dict]:
    """A stage's one finished artifact and its manifest."""
    [manifest] = folder.glob(f"store/{stage}-*/artifact.json")
    return manifest.parent, json.loads(manifest.read_text())


def curve(folder: Path, stage: str) -> list[dict[str, float]]:
    artifact, _ = finished(folder, stage)
    return [json.loads(line) for line in (artifact / "train_log.jsonl").read_text().splitlines()]


def assert_same_losses(one: Path, two: Path, stage: str, *terms: str) -> None:
    first, second = curve(one, stage), curve(two, stage)
    assert len(first) == len(second) > 2
    for term in ("loss", "grad_norm", *terms):
        values = [[step[term] for step in steps] for steps in (first, second)]
        assert len(set(values[0])) > 1, f"{term} says nothing"
        np.testing.assert_allclose(*values, **LOOSE, err_msg=term)


@pytest.fixture
def run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(outputs: str, *arguments: object) -> Path:
        said = cli("run", "recipe.toml", "--outputs", outputs, "--threads", "1", *arguments)
        assert said.code == 0, said.err
        return tmp_path / outputs

    return call


@pytest.mark.slow
def test_two_processes_give_what_one_gives(run, tmp_path):
    """The whole chain: every term of the losses, every score, every answer.

    The processes share each batch of the warm-up, and its balance is still that of all of it.
    """
    write_recipe(tmp_path, batch=4)
    one = run("one", "--num-processes", "1")
    two = run("two", "--num-processes", "2")

    assert_same_losses(one, two, "warmup", *TERMS)
    scores = [ScoreTable.open(finished(folder, "score")[0]) for folder in (one, two)]
    assert (scores[0].ids() == scores[1].ids()).all()
    np.testing.assert_allclose(scores[0].score(), scores[1].score(), rtol=1e-4)
    assert_same_losses(one, two, "train")
    told = [finished(folder, "evaluate")[1]["facts"]["tasks"] for folder in (one, two)]
    assert told[0]
    assert told[0] == told[1]
    for stage in ("warmup", "score", "train", "evaluate"):
        assert finished(two, stage)[1]["details"]["processes"] == 2
        assert finished(one, stage)[1]["details"]["processes"] == 1
    for stage in ("pool", "convert", "select"):
        assert finished(two, stage)[1]["details"]["processes"] == 1
    one_model, two_model = (finished(folder, "convert")[0] / "model" for folder in (one, two))
    assert tree(one_model) == tree(two_model)


def test_a_batch_that_cannot_be_shared_out_is_told_before_anything_is_made(
    cli, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, batch=5)
    said = cli("run", "recipe.toml", "--num-processes", "2", "--until", "warmup")
    assert said.code == 2
    assert "neither the 1 micro-batches of a step nor the 5 examples" in said.err
    assert not list(tmp_path.glob("outputs/store/convert-*/artifact.json"))

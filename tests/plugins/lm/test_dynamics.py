"""The dynamics of losses over a warm-up's checkpoints, against one model after the other."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from less_warm_up import make_warm_up
from llama_models import conversations, job
from peft import PeftModel
from transformers import AutoModelForCausalLM

from selectmoe_core import ModelError, Shard, StageError
from selectmoe_core.cli import call
from selectmoe_core.data import Part
from selectmoe_core.models.models import Models
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.tokens.encoding import encode
from selectmoe_lm.config import DynamicsConfig
from selectmoe_lm.dynamics import DynamicsScorer, measured

EXAMPLES = conversations(12, seed=9)


@pytest.fixture(scope="module")
def warm_up(tmp_path_factory):
    return make_warm_up(tmp_path_factory.mktemp("warm-up"))


def job_of(warm_up, folder, checkpoints=None):
    made = job(
        folder,
        inputs=Inputs(model=warm_up.adapter, checkpoints=checkpoints or warm_up.folder),
        models=Models(),
    )
    encoded = {}

    def tokens(tokenizer):
        if not encoded:
            encoded["made"] = encode(EXAMPLES, folder / "encoded", made.chat, tokenizer)
        return encoded["made"]

    return replace(made, encoded=tokens)


def scored(warm_up, folder, **options):
    made = job_of(warm_up, folder)
    with DynamicsScorer(DynamicsConfig(**options)).open(made) as opened:
        return opened.score(Shard(0, np.arange(len(EXAMPLES)), EXAMPLES))


def plain_losses(warm_up, folder):
    """The mean loss of each example's response tokens, base and checkpoints loaded one by one."""
    made = job_of(warm_up, folder)
    encoded = made.encoded(made.models.tokenizer(warm_up.base))
    columns = []
    for checkpoint in (None, *warm_up.kept):
        model = AutoModelForCausalLM.from_pretrained(warm_up.base.location)
        if checkpoint is not None:
            model = PeftModel.from_pretrained(model, checkpoint.folder)
        model.eval()
        column = []
        for example in encoded:
            ids = torch.tensor(np.asarray(example.ids, dtype=np.int64))[None]
            with torch.no_grad():
                logs = model(ids).logits[0].double().log_softmax(-1)
            counted = [n for n, part in enumerate(example.parts) if part == Part.RESPONSE and n]
            column.append(-np.mean([float(logs[n - 1, ids[0, n]]) for n in counted]))
        columns.append(column)
    return np.array(columns).T


def test_losses_equal_those_of_each_checkpoint_loaded_alone(warm_up, tmp_path):
    found = scored(warm_up, tmp_path / "ours")
    expected = plain_losses(warm_up, tmp_path / "plain")
    assert found.details["losses"].shape == (len(EXAMPLES), 1 + len(warm_up.kept))
    np.testing.assert_allclose(found.details["losses"], expected, rtol=1e-4)
    np.testing.assert_allclose(found.score, expected[:, 0] - expected[:, -1], atol=1e-4)
    assert np.abs(expected[:, 0] - expected[:, -1]).max() > 0.05  # the checkpoints differ
    assert np.abs(expected[:, 1] - expected[:, 2]).max() > 0.001
    without = scored(warm_up, tmp_path / "without", from_base=False, prefer="low")
    np.testing.assert_allclose(without.details["losses"], expected[:, 1:], rtol=1e-4)
    np.testing.assert_allclose(without.score, expected[:, -1] - expected[:, 1], atol=1e-4)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("drop", [2.0, 0.0]),
        ("mean", [2.0, 1.0]),
        ("last", [1.0, 1.0]),
        ("variability", [0.8164966, 0.0]),
    ],
)
def test_measures_by_hand(measure, expected):
    found = measured(np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), measure)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_checkpoints_that_cannot_be_used_are_told_before_the_first_stage(warm_up, tmp_path):
    with pytest.raises(StageError, match="kept 0 checkpoints") as caught:
        DynamicsScorer(DynamicsConfig()).check(job_of(warm_up, tmp_path, tmp_path / "nothing"))
    assert "checkpoint_every" in caught.value.hint
    one = tmp_path / "one"
    shutil.copytree(warm_up.kept[0].folder, one / "kept" / warm_up.kept[0].folder.name)
    DynamicsScorer(DynamicsConfig()).check(job_of(warm_up, tmp_path, one))
    with pytest.raises(StageError, match="kept 1 checkpoints"):
        DynamicsScorer(DynamicsConfig(from_base=False)).check(job_of(warm_up, tmp_path, one))
    other = tmp_path / "other"
    folder = other / "kept" / warm_up.kept[0].folder.name
    shutil.copytree(warm_up.kept[0].folder, folder)
    (folder / "adapter_config.json").unlink()
    complete = json.loads((folder / "complete.json").read_text())
    complete["files"].pop("adapter_config.json", None)
    (folder / "complete.json").write_text(json.dumps(complete))
    with pytest.raises(ModelError, match="are not LoRA adapters"):
        DynamicsScorer(DynamicsConfig()).check(job_of(warm_up, tmp_path, other))


RECIPE = """
format = 1
name = "dynamics"
[pool]
use = "nano"
examples = 40
[warmup]
use = "llama-lora"
model = "bundled:nano-llama"
subset_ratio = 0.5
max_steps = 4
batch_size = 4
checkpoint_every = 2
[score]
use = "dynamics"
[select]
use = "top-fraction"
fraction = 0.2
"""


@pytest.mark.slow
def test_a_recipe_scores_by_the_checkpoints_of_its_warm_up(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dynamics.toml").write_text(RECIPE)
    assert call(["plan", "dynamics.toml"]) == 0
    assert call(["run", "dynamics.toml", "--device", "cpu"]) == 0
    assert "kept 8" in capsys.readouterr().err

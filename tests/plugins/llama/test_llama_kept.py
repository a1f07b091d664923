"""Checkpoints that the LoRA trainer keeps for later stages."""

import json

import pytest
import torch
from llama_models import ADAPTER, conversations, llama, options, train
from pydantic import ValidationError
from safetensors.torch import load_file

from selectmoe_core.errors import StageError
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.training import kept_checkpoints
from selectmoe_core.training.checkpoints import last_checkpoint
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.trainer import LlamaLora

FILES = {"adapter_config.json", ADAPTER, "moments.safetensors", "training.json", "complete.json"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> ModelRef:
    return llama(tmp_path_factory.mktemp("llama"))


def kept_options(**changes):
    schedule = {"scheduler": "linear", "warmup_ratio": 0.25, "max_steps": 8}
    return options(**{"checkpoint_every": "epoch", **schedule, **changes})


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    """19 examples in batches of 8: three steps an epoch, and two in the last one."""
    folder = tmp_path_factory.mktemp("kept")
    rates = {}

    def record(step, values):
        rates[step] = values["learning_rate"]

    facts, out = train(base, conversations(19), folder, kept_options(), metrics=record)
    return facts, out, kept_checkpoints(folder / "checkpoints"), rates


def test_one_is_kept_after_each_epoch_and_after_the_last_step(run):
    facts, out, kept, _ = run
    assert [checkpoint.step for checkpoint in kept] == [3, 6, 8]
    assert [round(checkpoint.epoch, 4) for checkpoint in kept] == [1.0, 2.0, 2.6667]
    assert facts["kept_checkpoints"] == 3
    assert (kept[-1].folder / ADAPTER).read_bytes() == (out / ADAPTER).read_bytes()
    assert (kept[0].folder / ADAPTER).read_bytes() != (out / ADAPTER).read_bytes()
    for checkpoint in kept:
        assert {path.name for path in checkpoint.folder.iterdir()} == FILES  # and no pickle


def test_learning_rates_are_those_of_the_steps(run):
    _, _, kept, rates = run
    assert len(set(rates.values())) > 4
    for checkpoint, steps in zip(kept, [(1, 2, 3), (4, 5, 6), (7, 8)], strict=True):
        taken = [rates[step] for step in steps]
        assert checkpoint.learning_rate == pytest.approx(taken[-1], rel=1e-9)
        assert checkpoint.mean_learning_rate == pytest.approx(sum(taken) / len(taken), rel=1e-9)


def test_moments_are_the_optimizers_by_the_names_of_the_weights(run):
    _, _, kept, _ = run
    resumed = last_checkpoint(kept[-1].folder.parents[1])
    states = torch.load(resumed / "optimizer.pt", weights_only=True)["state"]
    moments, weights = load_file(kept[-1].moments), load_file(kept[-1].folder / ADAPTER)
    assert {name.rpartition(".")[0] for name in moments} == set(weights)
    assert len(states) == len(weights)
    # torch counts weights in the model's order: by layer, by projection, A before B
    order = [
        f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_{side}.weight"
        for layer in range(2)
        for name in "qkvo"
        for side in "AB"
    ]
    for number, name in enumerate(order):
        for kind in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(moments[f"{name}.{kind}"], states[number][kind])
            assert moments[f"{name}.{kind}"].shape == weights[name].shape
    assert (kept[-1].adam.beta1, kept[-1].adam.beta2, kept[-1].adam.epsilon) == (0.9, 0.999, 1e-8)


def test_a_kept_checkpoint_is_an_adapter(run, base):
    _, _, kept, _ = run
    network = Models().load(ModelRef(str(kept[0].folder)), dtype="float32", device="cpu")
    stored = load_file(kept[0].folder / ADAPTER)
    own = {name.replace(".default", ""): w for name, w in network.named_parameters()}
    assert all(torch.equal(own[name], weight) for name, weight in stored.items())
    assert kept[0].folder.joinpath("adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"keep_checkpoints": 2}, [6, 8]),
        ({"checkpoint_every": 2, "max_steps": 4}, [2, 4]),
        ({"checkpoint_every": 3, "max_steps": 4, "keep_checkpoints": 1}, [4]),
        ({"checkpoint_every": 100, "max_steps": 2}, [2]),
        ({"checkpoint_every": None, "max_steps": 2}, []),
    ],
)
def test_which_are_kept(base, tmp_path, changes, steps):
    facts, _ = train(base, conversations(19), tmp_path, kept_options(**changes))
    assert [checkpoint.step for checkpoint in kept_checkpoints(tmp_path / "checkpoints")] == steps
    assert facts.get("kept_checkpoints", 0) == len(steps)


class KilledError(Exception):
    pass


def test_a_killed_and_resumed_run_keeps_the_same_bytes(run, base, tmp_path):
    def metrics(step, values):
        if step == 7:
            raise KilledError

    config = kept_options(checkpoint_minutes=1e-9)
    with pytest.raises(KilledError):
        train(base, conversations(19), tmp_path, config, metrics=metrics)
    half = tmp_path / "checkpoints" / "kept" / ".checkpoint-8"
    half.mkdir()
    (half / ADAPTER).write_bytes(b"half")
    train(base, conversations(19), tmp_path, config)
    again = kept_checkpoints(tmp_path / "checkpoints")
    assert [checkpoint.step for checkpoint in again] == [3, 6, 8]
    for one, other in zip(run[2], again, strict=True):
        for name in FILES:
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name


@pytest.mark.parametrize("damage", ["a file is gone", "a file is cut", "no numbers"])
def test_a_damaged_one_is_an_error(run, tmp_path, damage):
    source = run[2][0].folder
    folder = tmp_path / "kept" / source.name
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert len(kept_checkpoints(tmp_path)) == 1
    if damage == "a file is gone":
        (folder / "moments.safetensors").unlink()
    elif damage == "a file is cut":
        (folder / ADAPTER).write_bytes((source / ADAPTER).read_bytes()[:-5])
    else:
        (folder / "training.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(StageError, match="damaged"):
        kept_checkpoints(tmp_path)


def test_options_that_have_no_effect_are_refused():
    with pytest.raises(ValidationError, match="has no effect without 'checkpoint_every'"):
        LoraTrainingConfig(keep_checkpoints=3)
    for wrong in ({"checkpoint_every": 0}, {"checkpoint_every": "step"}):
        with pytest.raises(ValidationError):
            LlamaLora(LoraTrainingConfig(**wrong))

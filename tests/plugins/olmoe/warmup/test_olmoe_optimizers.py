"""Optimizers of warm-up: rounding at random, its states, what is offered and what is refused."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from olmoe_models import tensors
from safetensors.torch import load_file
from torch import nn
from transformers.optimization import Adafactor

from selectmoe_core.errors import StageError
from selectmoe_olmoe.config import ConstraintConfig
from selectmoe_olmoe.warmup.optimizers import (
    StochasticRounding,
    optimizer_of,
    stochastically_rounded,
)
from selectmoe_olmoe.warmup.trainable import check_dtype

pytest_plugins = ["olmoe_fixtures"]

WHOLE = {"trainable": "all", "weights": "bfloat16"}
ADAFACTOR = {"scale_parameter": False, "relative_step": False, "warmup_init": False}


@pytest.mark.parametrize("value", [1.0, 0.0203, -3.3e-5, 0.0, -7.0, 1e30])
def test_rounding_is_to_a_neighbour_and_right_on_average(value):
    torch.manual_seed(1)
    one = torch.full((200_000,), value)
    rounded = stochastically_rounded(one).float()
    step = abs(value) * 2**-7
    assert rounded.dtype == torch.float32
    assert rounded.unique().numel() <= 2
    assert (rounded - one).abs().max().item() <= step
    assert rounded.mean(dtype=torch.float64).item() == pytest.approx(value, abs=step / 100)
    exact = one.to(torch.bfloat16).float()
    if torch.equal(exact, one):
        assert torch.equal(rounded, one)


@pytest.mark.parametrize(
    ("inner", "options"), [(torch.optim.AdamW, {}), (Adafactor, ADAFACTOR)], ids=["adamw", "factor"]
)
def test_small_steps_are_not_lost_and_follow_fp32(inner, options):
    """A weight of 0.02 in bf16 cannot take a step of 1e-6 when it is rounded to the nearest."""
    torch.manual_seed(2)
    start = torch.full((64, 64), 0.02)
    grads = [torch.randn(64, 64) * 0.1 + 1.0 for _ in range(60)]
    moved = {}
    for kind in (torch.float32, torch.bfloat16):
        weight = nn.Parameter(start.to(kind))
        begun = weight.detach().float().mean().item()
        options = {"lr": 1e-6, "weight_decay": 0.0, **options}
        made = (
            inner([weight], **options)
            if kind == torch.float32
            else StochasticRounding([weight], inner=inner, **options)
        )
        for grad in grads:
            weight.grad = grad.to(kind)
            made.step()
        moved[kind] = weight.detach().float().mean().item() - begun
    assert moved[torch.float32] < -3e-5
    assert moved[torch.bfloat16] == pytest.approx(moved[torch.float32], rel=0.1)


def test_fp32_parameters_step_as_without_it():
    torch.manual_seed(3)
    weights = [nn.Parameter(torch.ones(5, 4)), nn.Parameter(torch.ones(5, 4))]
    plain = torch.optim.AdamW(weights[:1], lr=0.1, weight_decay=0.2)
    made = StochasticRounding(weights[1:], inner=torch.optim.AdamW, lr=0.5, weight_decay=0.2)
    made.param_groups[0]["lr"] = 0.1  # as a scheduler sets it
    for _ in range(4):
        for weight in weights:
            weight.grad = weight.detach() * 2 + 1
        plain.step()
        made.step()
    assert torch.equal(*weights)


def test_states_are_taken_up_in_fp32():
    def fresh():
        weight = nn.Parameter(torch.linspace(-1, 1, 64).view(8, 8).to(torch.bfloat16))
        return weight, StochasticRounding([weight], inner=torch.optim.AdamW, lr=1e-3)

    def steps(weight, made, count):
        for number in range(count):
            weight.grad = torch.full_like(weight, 0.3 + number)
            torch.manual_seed(number)
            made.step()

    weight, made = fresh()
    steps(weight, made, 3)
    state = deepcopy(made.state_dict())
    other, taken = fresh()
    taken.load_state_dict(state)
    with torch.no_grad():
        other.copy_(weight)
    for one, its in ((weight, made), (other, taken)):
        steps(one, its, 2)
    assert torch.equal(weight, other)
    moments = taken.state_dict()["inner"][0]["state"][0]
    assert moments["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_bf16_weights_train_and_gates_stay_fp32(stage, optimizer):
    options = {**WHOLE, "optimizer": optimizer, "max_steps": 4, "checkpoint_every": 4}
    facts, out = stage.run(dtype="bfloat16", **options)
    assert facts["final"]["cross_entropy"] < facts["first"]["cross_entropy"]
    folder = stage.folder / "run" / "checkpoints" / "checkpoint-4"
    for name, weight in load_file(folder / "partial.safetensors").items():
        gate = name.endswith("mlp.gate.weight")
        assert weight.dtype == (torch.float32 if gate else torch.bfloat16), name
    assert {weight.dtype for weight in tensors(out).values()} == {torch.bfloat16}


def test_adafactor_trains_fp32_weights(stage):
    facts, _ = stage.run(trainable="all", optimizer="adafactor", max_steps=4)
    assert facts["final"]["cross_entropy"] < facts["first"]["cross_entropy"]


def test_what_is_not_there_or_of_no_use_is_said(stage, monkeypatch):
    assert optimizer_of(ConstraintConfig()) is None
    assert optimizer_of(ConstraintConfig(weights="bfloat16")) is None  # gates alone are fp32 anyway
    monkeypatch.setattr("selectmoe_olmoe.warmup.optimizers.find_spec", lambda _: None)
    with pytest.raises(StageError, match="bitsandbytes"):
        optimizer_of(ConstraintConfig(optimizer="adamw_8bit"))
    job = stage.job()
    with pytest.raises(StageError, match="has no use if the stage computes in float32"):
        check_dtype(ConstraintConfig(**WHOLE), job)
    check_dtype(ConstraintConfig(**WHOLE), replace(job, dtype="bfloat16"))
    check_dtype(ConstraintConfig(weights="bfloat16"), job)

"""Optimizers of warm-up: rounding at random, its states, what is offered and what is refused."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import which

import pytest
import torch
from olmoe_models import tensors
from safetensors.torch import load_file
from torch import nn
from transformers.optimization import Adafactor

from selectmoe_core.errors import StageError
from selectmoe_olmoe.config import ConstraintConfig
from selectmoe_olmoe.warmup.optimizers import (
    RoundedAdafactor,
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
    ("inner", "options", "rounded"),
    [
        (torch.optim.AdamW, {}, partial(StochasticRounding, inner=torch.optim.AdamW)),
        (Adafactor, ADAFACTOR, RoundedAdafactor),
    ],
    ids=["adamw", "factor"],
)
def test_small_steps_are_not_lost_and_follow_fp32(inner, options, rounded):
    """A weight of 0.02 in bf16 cannot take a step of 1e-6 when it is rounded to the nearest."""
    torch.manual_seed(2)
    start = torch.full((64, 64), 0.02)
    grads = [torch.randn(64, 64) * 0.1 + 1.0 for _ in range(60)]
    moved = {}
    for kind in (torch.float32, torch.bfloat16):
        weight = nn.Parameter(start.to(kind))
        begun = weight.detach().float().mean().item()
        made = (
            inner([weight], lr=1e-6, weight_decay=0.0, **options)
            if kind == torch.float32
            else rounded([weight], lr=1e-6)
        )
        for grad in grads:
            weight.grad = grad.to(kind)
            made.step()
        moved[kind] = weight.detach().float().mean().item() - begun
    assert moved[torch.float32] < -3e-5
    assert moved[torch.bfloat16] == pytest.approx(moved[torch.float32], rel=0.1)


SHAPES = [(7,), (6, 9), (3, 8, 5)]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def test_adafactor_takes_the_steps_of_transformers():
    torch.manual_seed(5)
    starts = [torch.randn(shape) for shape in SHAPES]
    ours = [nn.Parameter(start.clone()) for start in starts]
    theirs = [nn.Parameter(start.clone()) for start in starts]
    made = RoundedAdafactor(ours, lr=0.5, weight_decay=0.1)
    made.param_groups[0]["lr"] = 0.02  # as a scheduler sets it
    plain = Adafactor(theirs, lr=0.02, weight_decay=0.1, **ADAFACTOR)
    for scale in (1.0, 30.0, 0.01, 1.0):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one) * scale
            other.grad = one.grad.clone()
        made.step()
        plain.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def check_compiled_steps(device):
    """Over many columns of one gradient, the mean of the rounded steps is the step in fp32."""
    torch.manual_seed(6)
    gradient = torch.randn(40, 1).expand(40, 4000).to(device, torch.bfloat16)
    start = torch.randn(40, 1).expand(40, 4000).to(device, torch.bfloat16)
    weight, wide = nn.Parameter(start.clone()), nn.Parameter(start.float())
    made = RoundedAdafactor([weight], lr=1e-4, compiled=True)
    plain = Adafactor([wide], lr=1e-4, **ADAFACTOR)
    weight.grad, wide.grad = gradient.contiguous(), gradient.float()
    made.step()
    plain.step()
    assert weight.dtype == torch.bfloat16
    moved = (weight.float() - start.float()).mean(dim=1)
    expected = (wide - start.float()).mean(dim=1)
    gap = start[:, 0].float().abs() * 2**-7  # at least the distance of two neighbours
    assert ((moved - expected).abs() < 5 * gap / 2 / 4000**0.5).all()


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.skipif(not which("g++"), reason="there is no g++")),
        pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU]),
    ],
)
def test_compiled_steps_of_bf16_weights_are_right_on_average(device, tmp_path):
    """In a fresh process: torch compiles with setuptools, which trips over earlier imports."""
    code = f"import test_olmoe_optimizers as tests; tests.check_compiled_steps({device!r})"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **cache}, check=True)


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


@pytest.mark.parametrize(
    ("rounded", "moments"),
    [
        (partial(StochasticRounding, inner=torch.optim.AdamW), ["exp_avg", "exp_avg_sq"]),
        (RoundedAdafactor, ["moments"]),
    ],
    ids=["adamw", "factor"],
)
def test_states_are_taken_up_in_fp32(rounded, moments):
    def fresh():
        weight = nn.Parameter(torch.linspace(-1, 1, 64).view(8, 8).to(torch.bfloat16))
        return weight, rounded([weight], lr=1e-3)

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
    state = taken.state_dict()
    state = (state["inner"][0] if "inner" in state else state)["state"][0]
    held = [state[name] for name in moments]
    held = [tensor for one in held for tensor in (one if isinstance(one, tuple) else (one,))]
    assert {tensor.dtype for tensor in held} == {torch.float32}


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

"""Warm-up of weights that two processes share out (FSDP): what one process gives, and resumed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from olmoe_models import tensors
from olmoe_stage import Stage, converted
from sharded_warmup import OPTIONS

from selectmoe_core.errors import StageError
from selectmoe_olmoe.config import ConstraintConfig
from selectmoe_olmoe.warmup.trainable import check_sharding

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_USE_CPU": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "OlmoeDecoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
TERMS = ("loss", "grad_norm", "cross_entropy", "balance", "bce", "margin")
HELPERS = Path(__file__).parents[3] / "helpers"


def sharded(base, folder):
    """Run on two processes; return what was logged, by step."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HELPERS / "sharded_warmup.py"), str(base), str(folder)]
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    env = os.environ | FSDP | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {step.pop("step"): step for step in json.loads((folder / "curve.json").read_text())}


@pytest.mark.slow
def test_shared_out_weights_train_as_whole_ones_and_resume(tmp_path):
    base = converted(tmp_path)
    one = Stage(base, tmp_path / "one")
    _, whole = one.run(**OPTIONS)
    curve = sharded(str(base), tmp_path / "two")
    assert len(curve) == len(one.curve) == 6
    for term in TERMS:
        values = [[step[term] for step in steps] for steps in (one.curve, curve.values())]
        assert len(set(values[0])) > 1, f"{term} says nothing"
        np.testing.assert_allclose(*values, rtol=2e-4, atol=2e-5, err_msg=term)
    folder = tmp_path / "two" / "run"
    first, second = tensors(whole), tensors(folder / "model")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_allclose(tensor, second[name], rtol=1e-3, atol=1e-4, err_msg=name)

    kept = {path.name for path in (folder / "checkpoints" / "checkpoint-3").iterdir()}
    assert "partial.safetensors" in kept
    assert not [name for name in kept if "fsdp" in name]  # no second copy, and no pickle of weights
    shutil.rmtree(folder / "checkpoints" / "checkpoint-6")
    shutil.rmtree(folder / "model")
    resumed = sharded(str(base), tmp_path / "two")
    assert resumed == {step: curve[step] for step in (4, 5, 6)}
    for name, tensor in tensors(folder / "model").items():
        assert tensor.equal(second[name]), name


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({}, "FULL_STATE_DICT", "only split weights of one dtype"),
        (
            {"trainable": "all", "weights": "bfloat16"},
            "FULL_STATE_DICT",
            "only split weights of one dtype",
        ),
        ({"trainable": "all"}, "SHARDED_STATE_DICT", "in pieces"),
        ({"trainable": "all"}, None, "in pieces"),
    ],
)
def test_what_cannot_be_shared_out_is_told(monkeypatch, options, kind, said):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.delenv("FSDP_STATE_DICT_TYPE", raising=False)
    if kind:
        monkeypatch.setenv("FSDP_STATE_DICT_TYPE", kind)
    with pytest.raises(StageError, match=said):
        check_sharding(ConstraintConfig(**options))

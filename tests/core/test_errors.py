"""Errors of the machine: they are told as such, with what to do, and are nobody's bug."""

import subprocess

import numpy as np
import pytest
import torch

from selectmoe_core.errors import of_machine


def raised(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (any kind: the text decides)
        call()
    return caught.value


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 58),
        lambda: np.empty(1 << 58),
        lambda: bytearray(1 << 62),
        lambda: torch.empty(1 << 40, device="cuda"),
    ],
    ids=["torch", "numpy", "python", "cuda"],
)
def test_used_up_memory_is_told_with_what_needs_less(allocate, request):
    if request.node.callspec.id == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    error = of_machine(raised(allocate), "score router", "lower batch_tokens in [score]")
    assert str(error).startswith("score router: the memory is used up: ")
    assert "\n" not in str(error)
    assert error.hint.startswith("lower batch_tokens in [score], then run again")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        subprocess.CalledProcessError(1, ["/usr/bin/gcc", "/tmp/a/cuda_utils.c", "-O3"]),
        RuntimeError(
            "InductorError: CalledProcessError: Command '['/usr/bin/x86_64-linux-gnu-gcc', "
            "'/tmp/a/main.c']' returned non-zero exit status 1.\n\nSet TORCHDYNAMO_VERBOSE=1"
        ),
    ],
    ids=["triton", "headers", "inductor"],
)
def test_a_missing_compiler_is_told_with_what_to_install(error):
    found = of_machine(error, "warmup constraint")
    assert str(found) == "warmup constraint: there is no working C compiler"
    assert "install gcc and Python's headers" in found.hint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes [2, 3] and [4] do not fit"),
        subprocess.CalledProcessError(1, ["git", "log"]),
        ValueError("row 3: no messages"),
    ],
)
def test_any_other_error_stays_what_it_is(error):
    assert of_machine(error, "x") is None

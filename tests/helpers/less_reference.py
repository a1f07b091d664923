"""LESS written down plainly: one example at a time, autograd, and a dense projection matrix."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

MASK = (1 << 64) - 1


def split_mix(key: int, count: int) -> list[int]:
    """The first numbers of SplitMix64, in Python's unbounded integers."""
    found, state = [], key & MASK
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        found.append(mixed ^ (mixed >> 31))
    return found


def sign_rows(key: int, rows: int, width: int) -> np.ndarray:
    """A matrix of random signs: bits of the numbers, the lowest first."""
    each = -(-width // 64)
    numbers = split_mix(key, rows * each)
    bits = [[(number >> bit) & 1 for bit in range(64)] for number in numbers]
    return (np.array(bits).reshape(rows, each * 64)[:, :width] * 2 - 1).astype(np.float64)


def dense_rademacher(key: int, entries: int, width: int) -> np.ndarray:
    return sign_rows(key, entries, width) / width**0.5


def dense_sketch(key: int, entries: int, width: int) -> np.ndarray:
    """The CountSketch as a matrix: a single sign in each row."""
    blocks = -(-entries // width)
    turns = [((number >> 33) * width) >> 31 for number in split_mix(key, blocks)]
    drawn = sign_rows(key + 1, blocks, width)
    matrix = np.zeros((entries, width))
    for entry in range(entries):
        block, place = divmod(entry, width)
        bucket = (place + turns[block]) % width
        matrix[entry, bucket] = drawn[block, bucket]
    return matrix


DENSE = {"count-sketch": dense_sketch, "rademacher": dense_rademacher}


def trainable(network: Any) -> dict[str, Tensor]:
    """The LoRA weights of a PEFT model by their names in its files."""
    return {
        name.replace(".default", ""): weight
        for name, weight in network.named_parameters()
        if "lora_" in name
    }


def example_loss(network: Any, ids: Tensor, counted: Tensor) -> Tensor:
    """The mean loss of the counted tokens of one example, ``[length]``."""
    logs = log_softmax(network(input_ids=ids[None]).logits[0].float(), dim=-1)
    picked = logs[:-1].gather(1, ids[1:, None])[:, 0]
    return -picked[counted[1:]].mean()


def example_gradient(network: Any, ids: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """The gradient of one example for each LoRA weight, flat."""
    weights = trainable(network)
    for weight in weights.values():
        weight.requires_grad_()
    loss = example_loss(network, ids, counted)
    found = torch.autograd.grad(loss, list(weights.values()))
    return {name: grad.flatten() for name, grad in zip(weights, found, strict=True)}


def adam_step(
    gradient: Tensor, first: Tensor, second: Tensor, step: int, rule: str = "paper"
) -> Tensor:
    """The direction of Adam's step number ``step + 1``, in double precision."""
    gradient, first, second = (x.double().flatten() for x in (gradient, first, second))
    mean = 0.9 * first + 0.1 * gradient
    square = 0.999 * second + 0.001 * gradient**2
    if rule == "released-code":
        return mean / torch.sqrt(square + 1e-8)
    mean, square = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
    return mean / (square.sqrt() + 1e-8)

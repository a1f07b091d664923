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


def less_vector(
    base: Any, checkpoint: Any, ids: Tensor, counted: Tensor, *, pool: bool, how: dict[str, Any]
) -> np.ndarray:
    """The projected gradient of one example at one checkpoint, of length 1.

    ``how`` holds ``kind``, ``width``, ``seed`` and ``rule``.
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    from selectmoe_gradient.random_signs import key_of

    network = PeftModel.from_pretrained(base, str(checkpoint.folder)).eval()
    moments = load_file(checkpoint.folder / "moments.safetensors")
    total = np.zeros(how["width"])
    for name, gradient in example_gradient(network, ids, counted).items():
        taken = gradient.double()
        if pool:
            pair = moments[f"{name}.exp_avg"], moments[f"{name}.exp_avg_sq"]
            taken = adam_step(gradient, *pair, checkpoint.step, how["rule"])
        matrix = DENSE[how["kind"]](key_of(how["seed"], name), len(taken), how["width"])
        total += taken.numpy() @ matrix
    network.unload()
    return total / np.linalg.norm(total)


def less_vectors(
    base: Any, checkpoints: list[Any], examples: list[Any], *, pool: bool, how: dict[str, Any]
) -> list[np.ndarray]:
    """The vectors of examples ``(ids, counted)`` at each checkpoint, ``[examples, width]``."""
    return [
        np.stack([less_vector(base, one, *example, pool=pool, how=how) for example in examples])
        for one in checkpoints
    ]


def less_scores(
    pool: list[np.ndarray], targets: list[np.ndarray], tasks: list[str], rates: list[float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """LESS's score of each row of the pool, and the scores for each task.

    The cosine at each checkpoint is weighted by its learning rate, the mean is taken over the
    examples of a task, and the largest over the tasks.
    """
    total = sum(rates)
    cosines = sum(
        rate / total * one @ other.T for rate, one, other in zip(rates, pool, targets, strict=True)
    )
    by_task = {
        task: cosines[:, [row for row, name in enumerate(tasks) if name == task]].mean(axis=1)
        for task in dict.fromkeys(tasks)
    }
    return np.max(list(by_task.values()), axis=0), by_task

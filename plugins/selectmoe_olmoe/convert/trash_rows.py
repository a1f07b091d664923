"""What conversion changes: the new rows of a gate, the configuration, and the index."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core import ModelError
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert.checkpoint import AGAIN
from selectmoe_olmoe.convert.layout import Place
from selectmoe_olmoe.family import MoeFamily, MoeShape

BF16 = "BF16"
FLOATS: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
HALF = 8
"""The numbers of a block whose angles come from the next as many."""


def trash_count(config: TrashcanConfig, source: MoeShape) -> int:
    """Return the number of trash cans per layer: by default one for each slot of a token."""
    return config.num_trash_experts or source.top_k


def layer_seed(seed: int, layer: int) -> int:
    """Return the seed of a layer's new rows, which does not depend on the order of shards."""
    digest = hashlib.sha256(f"trash cans of layer {layer}, seed {seed}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def trash_rows(
    shape: tuple[int, int],
    config: TrashcanConfig,
    *,
    seed: int,
    layer: int,
    experts: np.ndarray | None = None,
) -> np.ndarray:
    """Return a layer's new rows, drawn from N(mean, std) in fp32: ``[trash, hidden]``.

    Args:
        shape: of the new rows.
        config: the options.
        seed: of the conversion.
        layer: the layer's number.
        experts: the rows of the experts, fp32 ``[experts, hidden]``: the draws are added to copies
            of some, each used again only after all others.
    """
    rows = standard_normal(shape[0] * shape[1], layer_seed(seed, layer)).reshape(shape)
    mean, std = np.float32(config.trash_can_init_mean), np.float32(config.trash_can_init_std)
    drawn = np.asarray(rows * std + mean)
    if experts is None:
        return drawn
    order = np.random.RandomState(layer_seed(seed, layer) % (1 << 32)).permutation(len(experts))
    return np.asarray(experts[np.resize(order, shape[0])] + drawn)


def standard_normal(count: int, seed: int) -> np.ndarray:
    """Return the float32 ``[count]`` that ``torch.randn`` draws under a seed, without torch.

    Importing torch from a cold disk can take as long as copying a checkpoint. These are torch's
    numbers on the CPU except for the last bits, where its approximations of the logarithm and the
    cosine depend on the processor, and for the last 16 if ``count`` is not a multiple of 16:
    Mersenne Twister, 24 bits to a uniform number, Box and Muller's transform in blocks of 16.
    """
    blocks = -(-count // (2 * HALF))
    state = np.random.RandomState(seed % (1 << 32))
    words = state.randint(0, 1 << 32, size=(blocks, 2, HALF), dtype=np.uint32)
    uniform = (words & np.uint32((1 << 24) - 1)).astype(np.float64) * 2.0**-24
    radius = np.sqrt(-2 * np.log(1 - uniform[:, 0]))
    angle = 2 * np.pi * uniform[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32)


def encoded(values: np.ndarray, dtype: str) -> bytes:
    """Return float32 values as the bytes of a safetensors dtype, rounded to nearest, ties to even.

    NumPy has no bfloat16: it is the upper half of a float32.
    """
    if dtype != BF16:
        return values.astype(FLOATS[dtype]).tobytes()
    bits = values.astype("<f4").view("<u4")
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype("<u2").tobytes()


def decoded(content: bytes, dtype: str) -> np.ndarray:
    """Return the values of a safetensors dtype as float32, ``[count]``."""
    if dtype != BF16:
        return np.frombuffer(content, FLOATS[dtype]).astype(np.float32)
    return (np.frombuffer(content, "<u2").astype("<u4") << np.uint32(16)).view("<f4")


def check_gate(name: str, gate: Place, source: MoeShape) -> None:
    """Raise ``ModelError`` unless the gate has the model's shape and holds floats."""
    expected = (source.experts, source.hidden)
    if gate.shape != expected:
        raise ModelError(
            f"{name}: its shape is {gate.shape}, but config.json asks for {expected}",
            hint="the sizes in config.json must match the weights",
        )
    if gate.dtype not in {BF16, *FLOATS}:
        raise ModelError(
            f"{name}: its dtype is {gate.dtype}; a quantised gate cannot get new rows",
            hint="convert a checkpoint in bf16, fp16 or fp32",
        )


def check_finite(path: Path, name: str, dtype: str, content: bytes) -> None:
    """Raise ``ModelError`` unless every value of the gate is finite."""
    if dtype == BF16:
        exponent = np.uint16(0x7F80)
        finite = (np.frombuffer(content, "<u2") & exponent) != exponent
    else:
        finite = np.isfinite(np.frombuffer(content, FLOATS[dtype]))
    if not finite.all():
        raise ModelError(f"{path}: {name} holds NaN or infinite values", hint=AGAIN)


def grown_config(
    original: Mapping[str, Any], family: MoeFamily, trash: int, config: TrashcanConfig
) -> dict[str, Any]:
    """Return ``config.json`` of the Select-MoE model: the source's, and the method's parameters."""
    grown = dict(original)
    grown["model_type"] = family.selector_type
    grown["architectures"] = [family.architecture]
    grown["num_trash_experts"] = trash
    for name in (
        "trash_can_init_mean",
        "trash_can_init_std",
        "constraint_loss_weight",
        "constraint_alpha",
        "constraint_beta",
        "balance_over",
    ):
        grown[name] = getattr(config, name)
    if config.router_aux_loss_coef is not None:
        grown["router_aux_loss_coef"] = config.router_aux_loss_coef
    return grown


def grown_index(original: Mapping[str, Any], parameters: int, size: int) -> dict[str, Any]:
    """Return the index with its totals raised by the new rows: their number and their bytes."""
    metadata = dict(original.get("metadata") or {})
    for key, more in (("total_size", size), ("total_parameters", parameters)):
        if key in metadata:
            metadata[key] += more
    return {**original, "metadata": metadata}

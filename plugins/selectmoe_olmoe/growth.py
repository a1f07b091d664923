"""What conversion changes: the rows that are added to a gate, the configuration, the index."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import OlmoeConfig

from selectmoe_core.errors import ModelError
from selectmoe_olmoe.checkpoint import AGAIN
from selectmoe_olmoe.config import TrashcanConfig


def trash_count(config: TrashcanConfig, source: OlmoeConfig) -> int:
    """Return how many trash cans a layer gets: by default one for each slot of a token."""
    return config.num_trash_experts or int(source.num_experts_per_tok)


def layer_seed(seed: int, layer: int) -> int:
    """Return the seed of a layer's new rows, so that they don't depend on the order of shards."""
    digest = hashlib.sha256(f"trash cans of layer {layer}, seed {seed}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def grow_gate(gate: Tensor, trash: int, config: TrashcanConfig, *, seed: int, layer: int) -> Tensor:
    """Append ``trash`` rows drawn from N(mean, std): ``[E, hidden]`` to ``[E + trash, hidden]``.

    The rows are drawn in fp32 on the CPU and rounded to the gate's own dtype.
    """
    generator = torch.Generator().manual_seed(layer_seed(seed, layer))
    rows = torch.randn(trash, gate.shape[1], generator=generator)
    rows = rows * config.trash_can_init_std + config.trash_can_init_mean
    return torch.cat([gate, rows.to(gate.dtype)])


def check_gate(name: str, gate: Tensor, source: OlmoeConfig) -> None:
    """Raise ``ModelError`` unless the gate has the model's shape and holds finite floats."""
    expected = (source.num_experts, source.hidden_size)
    if tuple(gate.shape) != expected:
        raise ModelError(
            f"{name}: its shape is {tuple(gate.shape)}, but config.json asks for {expected}",
            hint="num_experts and hidden_size of config.json must fit the weights",
        )
    if gate.dtype not in {torch.float32, torch.bfloat16, torch.float16, torch.float64}:
        raise ModelError(
            f"{name}: its dtype is {gate.dtype}; a quantised gate cannot take new rows",
            hint="convert a checkpoint in bf16, fp16 or fp32",
        )
    if not torch.isfinite(gate).all():
        raise ModelError(f"{name}: it holds NaN or infinite values", hint=AGAIN)


def grown_config(original: Mapping[str, Any], trash: int, config: TrashcanConfig) -> dict[str, Any]:
    """Return ``config.json`` of the Select-MoE model: the source's, and the method's parameters."""
    grown = dict(original)
    grown["model_type"] = "select_moe"
    grown["architectures"] = ["SelectMoeForCausalLM"]
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

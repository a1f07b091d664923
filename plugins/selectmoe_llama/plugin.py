"""What this plugin offers: the LoRA trainer."""

from typing import Any

from selectmoe_core import About, Component, Cost, Need, Trainer, Workload, hookimpl, load
from selectmoe_core.cost import (
    Shape,
    activation_bytes,
    optimizer_bytes,
    training_flops,
    weight_bytes,
)
from selectmoe_llama.config import LoraTrainingConfig, pass_tokens


@hookimpl
def selectmoe_trainers() -> list[Component[Any, Trainer]]:
    """Offer ``llama-lora``."""
    about = About(
        meaning="a low-rank adapter for the target model, trained on the selected examples",
        range="",
        cost="forward and backward passes over the selection, once per epoch",
        paper="LoRA: Hu et al. 2021, arXiv:2106.09685; defaults of LESS: Xia et al. 2024, "
        "arXiv:2402.04333",
    )
    return [
        Component(
            "llama-lora",
            LoraTrainingConfig,
            load("selectmoe_llama.trainer:LlamaLora"),
            about=about,
            needs=lambda _: frozenset({Need.MODEL, Need.TOKENS}),
            cost=_cost,
            seeded=True,
            torch=True,
            keeps=_keeps,
        )
    ]


def _keeps(config: LoraTrainingConfig) -> frozenset[Need]:
    """Return what later stages find."""
    if config.checkpoint_every is None:
        return frozenset()
    return frozenset({Need.CHECKPOINTS, Need.MOMENTS})


def _cost(config: LoraTrainingConfig, workload: Workload) -> Cost:
    examples = workload.examples * config.epochs
    if config.max_steps is not None:
        examples = float(config.max_steps * config.batch_size)  # independent of ``epochs``
    tokens = examples * workload.length
    if workload.model is None:
        return Cost(tokens=tokens)
    try:
        shape = Shape.of(workload.model)
    except KeyError:
        return Cost(tokens=tokens)
    recompute = config.activation_checkpointing
    added = _added_parameters(shape, config)
    batch = float(pass_tokens(config, "cuda"))
    if config.per_device_batch is not None:
        batch = min(batch, workload.length * config.per_device_batch)
    batch = max(batch, workload.length)
    weights = weight_bytes(shape, workload.dtype)
    held = weights if config.quantization == "none" else _quantized_bytes(shape, workload.dtype)
    return Cost(
        tokens=tokens,
        flops=training_flops(shape, tokens, workload.length, frozen=True, recompute=recompute),
        memory=held
        + 4.0 * added
        + optimizer_bytes(added)
        + activation_bytes(shape, batch, workload.dtype, recompute=recompute),
        # the adapter, and a checkpoint of it with two Adam moments; merged: the whole model again
        disk=(16.0 + 12.0 * _kept(config, workload)) * added + (weights if config.merge else 0.0),
    )


def _kept(config: LoraTrainingConfig, workload: Workload) -> float:
    """Return how many checkpoints are kept at most: each the LoRA weights and two moments."""
    if config.checkpoint_every is None:
        return 0.0
    each = -(-workload.examples // config.batch_size)
    steps = config.max_steps or config.epochs * each
    every = each if config.checkpoint_every == "epoch" else config.checkpoint_every
    made = max(1.0, -(-steps // max(1.0, every)))
    return made if config.keep_checkpoints == "all" else min(made, config.keep_checkpoints)


def _quantized_bytes(shape: Shape, dtype: str) -> float:
    """Return bytes of the weights with the layers' in nf4: 4.127 bits each with their scales."""
    layers = shape.active / shape.parameters
    return weight_bytes(shape, dtype) * (1 - layers) + shape.active * 4.127 / 8


def _added_parameters(shape: Shape, config: LoraTrainingConfig) -> float:
    """Return how many parameters LoRA adds: ``r x (inputs + outputs)`` for each linear layer."""
    query = shape.heads * shape.head_size
    value = shape.key_value_heads * shape.head_size
    wide = shape.hidden + shape.intermediate
    sums = {
        "q_proj": shape.hidden + query,
        "k_proj": shape.hidden + value,
        "v_proj": shape.hidden + value,
        "o_proj": query + shape.hidden,
        "gate_proj": wide,
        "up_proj": wide,
        "down_proj": wide,
    }
    layered = shape.layers * sum(sums.get(name, 0) for name in config.target_modules)
    head = shape.hidden + shape.vocabulary if "lm_head" in config.target_modules else 0
    return float(config.lora_rank * (layered + head))

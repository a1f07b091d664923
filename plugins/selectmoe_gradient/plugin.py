"""What this plugin offers: the embedder ``lora-gradients``."""

from typing import Any

from selectmoe_core import About, Component, Cost, Embedder, Need, Workload, hookimpl, load
from selectmoe_core.cost import Shape, activation_bytes, training_flops, weight_bytes
from selectmoe_gradient.config import LoraGradientsConfig
from selectmoe_gradient.passes import default_tokens

CHECKPOINTS = 4
"""As many as LESS uses; a plan does not know how many the warm-up will keep."""


@hookimpl
def selectmoe_embedders() -> list[Component[Any, Embedder]]:
    """Offer ``lora-gradients``."""
    about = About(
        meaning="in which direction training on an example moves the LoRA weights; of a pool's "
        "example beside a target's: how much a step on the one lowers the loss of the other",
        range="at each checkpoint a block of length root of its share of the learning rates",
        cost="for each checkpoint a forward pass and a backward pass for activations over every "
        "token, and one addition for each LoRA weight and example",
        paper="LESS: Xia et al. 2024, arXiv:2402.04333",
    )
    return [
        Component(
            "lora-gradients",
            LoraGradientsConfig,
            load("selectmoe_gradient.embedder:LoraGradients"),
            about=about,
            needs=lambda _: frozenset({Need.MODEL, Need.TOKENS, Need.CHECKPOINTS, Need.MOMENTS}),
            cost=_cost,
            seeded=True,
            torch=True,
        )
    ]


def _cost(config: LoraGradientsConfig, workload: Workload) -> Cost:
    tokens = workload.tokens * CHECKPOINTS
    disk = 2.0 * config.dimensions * CHECKPOINTS * workload.examples
    if workload.model is None:
        return Cost(tokens=tokens, disk=disk)
    try:
        shape = Shape.of(workload.model)
    except KeyError:  # the formulas do not fit this architecture
        return Cost(tokens=tokens, disk=disk)
    tokens_at_once = config.pass_tokens or default_tokens(shape, workload.dtype, None)
    batch = float(max(tokens_at_once, workload.length))
    return Cost(
        tokens=tokens,
        flops=training_flops(shape, tokens, workload.length, frozen=True, recompute=False),
        memory=weight_bytes(shape, workload.dtype)
        + activation_bytes(shape, batch, workload.dtype, recompute=False),
        disk=disk,
    )

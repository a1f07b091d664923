"""What this plugin offers: the ``router`` scorer."""

from dataclasses import replace
from typing import Any

from selectmoe_core import About, Component, Cost, Meaning, Need, Scorer, Workload, hookimpl, load
from selectmoe_core.cost import Shape, activation_bytes, forward_flops, weight_bytes
from selectmoe_router.config import ON_GPU, RouterConfig, chosen_layers
from selectmoe_router.statistics import STATISTICS


@hookimpl
def selectmoe_scorers() -> list[Component[Any, Scorer]]:
    """Offer ``router``."""
    return [
        Component(
            "router",
            RouterConfig,
            load("selectmoe_router.scorer:RouterScorer"),
            about=About(
                meaning="how much of an example the router gives to regular experts "
                "rather than to trash cans, as a mean over tokens and layers",
                range="0 to 1, higher is better (logit_sum: any number)",
                cost="one forward pass of the Select-MoE model over every token, without the head",
                paper="Select-MoE: trash-can experts in an OLMoE router (docs/method)",
            ),
            needs=lambda _: frozenset({Need.MODEL, Need.POOL, Need.TOKENS}),
            cost=_cost,
            torch=True,
            details=_details,
        )
    ]


def _details(config: RouterConfig) -> dict[str, Meaning]:
    """Return how the report shows the columns: every statistic, and the chosen one per layer."""
    found = {entry.name: entry.meaning for entry in STATISTICS}
    by_layer = replace(found[config.statistic], each="layer")
    load = Meaning("router probability, trash cans last", each="output", share=True, rows="layers")
    return found | {"layers": by_layer} | ({"features": load} if config.features else {})


def _cost(config: RouterConfig, workload: Workload) -> Cost:
    if workload.model is None:
        return Cost(tokens=workload.tokens)
    try:
        shape = Shape.of(workload.model)
        layers = chosen_layers(config.layers, shape.layers)
    except (KeyError, ValueError):  # check() reports the mistake
        return Cost(tokens=workload.tokens)
    run = replace(shape, layers=layers[-1] + 1)
    at_once = replace(shape, layers=1, vocabulary=0)
    outputs = shape.experts + shape.trash
    a_row = 80 + 4 * len(layers) + (2 * len(layers) * outputs if config.features else 0)
    return Cost(
        tokens=workload.tokens,
        flops=forward_flops(run, workload.tokens, workload.length, head=False),
        memory=weight_bytes(shape, workload.dtype)
        + activation_bytes(at_once, config.batch_tokens or ON_GPU, workload.dtype, recompute=False),
        disk=workload.examples * a_row,
    )

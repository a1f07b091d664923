"""What this plugin offers: embedders that read examples with a model."""

from dataclasses import replace
from typing import Any

from selectmoe_core import About, Component, Config, Cost, Embedder, Need, Workload, hookimpl, load
from selectmoe_core.cost import Shape, activation_bytes, forward_flops, weight_bytes
from selectmoe_embed.config import (
    ON_GPU,
    HiddenStatesConfig,
    RouterProfileConfig,
    SentenceTransformersConfig,
)

FLOAT16 = 2


@hookimpl
def selectmoe_embedders() -> list[Component[Any, Embedder]]:
    """Offer ``hidden-states``, ``router-profile`` and ``sentence-transformers``."""
    return [_hidden_states(), _router_profile(), _sentence_transformers()]


def _hidden_states() -> Component[Any, Embedder]:
    return Component(
        "hidden-states",
        HiddenStatesConfig,
        load("selectmoe_embed.hidden_states:HiddenStates"),
        about=About(
            meaning="what a language model makes of the whole example: a weighted mean of its "
            "hidden states",
            range="a vector as wide as the model's hidden states",
            cost="one forward pass over every token, without the head",
            paper="RDS+: Ivison et al. 2025, https://arxiv.org/abs/2503.01807",
        ),
        needs=_tokens,
        cost=_hidden_states_cost,
        torch=True,
    )


def _router_profile() -> Component[Any, Embedder]:
    return Component(
        "router-profile",
        RouterProfileConfig,
        load("selectmoe_embed.router_profile:RouterProfile"),
        about=About(
            meaning="which experts a mixture of experts would use for the example",
            range="a probability for each layer and output of its router",
            cost="one forward pass over every token up to the last router that is read",
        ),
        needs=_tokens,
        cost=_router_profile_cost,
        torch=True,
    )


def _sentence_transformers() -> Component[Any, Embedder]:
    return Component(
        "sentence-transformers",
        SentenceTransformersConfig,
        load("selectmoe_embed.sentences:SentenceTransformers"),
        about=About(
            meaning="what the example's text is about, to a model trained for similarity",
            range="a vector as wide as the model says",
            cost="one forward pass of a small model, which truncates long texts",
            paper="Sentence-BERT: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084",
        ),
        needs=lambda _: frozenset({Need.MODEL, Need.POOL}),
        requires=("sentence_transformers:selectmoe[sentences]",),
        torch=True,
    )


def _tokens(_: Config) -> frozenset[Need]:
    return frozenset({Need.MODEL, Need.POOL, Need.TOKENS})


def _hidden_states_cost(config: HiddenStatesConfig, workload: Workload) -> Cost:
    shape = _shape(workload)
    if shape is None:
        return Cost(tokens=workload.tokens)
    layers = shape.layers if config.layer is None else min(config.layer, shape.layers)
    return _cost(shape, layers, config.batch_tokens, workload, shape.hidden)


def _router_profile_cost(config: RouterProfileConfig, workload: Workload) -> Cost:
    shape = _shape(workload)
    if shape is None:
        return Cost(tokens=workload.tokens)
    layers = min(config.first_layers or shape.layers, shape.layers)
    width = layers * (shape.experts + shape.trash)
    return _cost(shape, layers, config.batch_tokens, workload, width)


def _shape(workload: Workload) -> Shape | None:
    try:
        return Shape.of(workload.model) if workload.model is not None else None
    except KeyError:  # the formulas do not fit this architecture
        return None


def _cost(
    shape: Shape, layers: int, batch_tokens: int | None, workload: Workload, width: int
) -> Cost:
    run = replace(shape, layers=layers)
    at_once = replace(shape, layers=1, vocabulary=0)
    return Cost(
        tokens=workload.tokens,
        flops=forward_flops(run, workload.tokens, workload.length, head=False),
        memory=weight_bytes(shape, workload.dtype)
        + activation_bytes(at_once, batch_tokens or ON_GPU, workload.dtype, recompute=False),
        disk=FLOAT16 * width * workload.examples,
    )

"""What this plugin offers: the Select-MoE model type, its converter and its two warm-ups."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from selectmoe_core import (
    About,
    Command,
    Component,
    Converter,
    Cost,
    Need,
    Trainer,
    Workload,
    hookimpl,
    load,
)
from selectmoe_core.cost import (
    BYTES,
    Shape,
    ShapeNames,
    activation_bytes,
    optimizer_bytes,
    training_flops,
    weight_bytes,
)
from selectmoe_olmoe.config import (
    ConstraintConfig,
    ContrastiveConfig,
    TrashcanConfig,
    WarmupConfig,
)
from selectmoe_olmoe.family import FAMILIES, family_of_selector, family_of_source

WARMUP_NEEDS = frozenset({Need.MODEL, Need.POOL, Need.TOKENS})
PAPER = "OLMoE: Muennighoff et al. 2024, arXiv:2409.02060; balance loss: Fedus et al. 2021"


@hookimpl
def selectmoe_model_types() -> Mapping[str, Callable[[], None]]:
    """Offer the functions that make transformers know ``select_moe``, by model type."""
    return {family.selector_type: family.register for family in FAMILIES}


@hookimpl
def selectmoe_converters() -> list[Component[Any, Converter]]:
    """Offer ``olmoe-trashcan``."""
    about = About(
        meaning="the source model with trash-can experts in every router; nothing else is changed",
        range="",
        cost="reads and writes the checkpoint once; memory of one shard, no GPU",
        paper=PAPER,
    )
    return [
        Component(
            "olmoe-trashcan",
            TrashcanConfig,
            load("selectmoe_olmoe.convert.converter:TrashcanConverter"),
            about=about,
            needs=lambda _: frozenset({Need.MODEL}),
            cost=_conversion_cost,
            seeded=True,
            torch=True,
        )
    ]


@hookimpl
def selectmoe_trainers() -> list[Component[Any, Trainer]]:
    """Offer ``select-moe-constraint`` and ``select-moe-contrastive``."""
    work = "forward and backward passes over the sample"
    gates = "by default only the gates are trained"
    return [
        Component(
            "select-moe-constraint",
            ConstraintConfig,
            load("selectmoe_olmoe.warmup.parts:SelectMoeConstraint"),
            about=About(
                meaning="a router that sends tokens to trash cans if the answer loss allows it",
                cost=f"{work}; {gates}",
                paper=PAPER,
            ),
            needs=lambda _: WARMUP_NEEDS,
            cost=_warmup_cost,
            seeded=True,
            torch=True,
            damages=lambda _: (),
            keeps=_keeps,
        ),
        Component(
            "select-moe-contrastive",
            ContrastiveConfig,
            load("selectmoe_olmoe.warmup.parts:SelectMoeContrastive"),
            about=About(
                meaning="a router that sends tokens of damaged examples to trash cans",
                cost=f"{work} and a corrupted copy of each example; {gates}",
                paper=f"{PAPER}; ranking loss: Burges et al. 2005",
            ),
            needs=lambda _: WARMUP_NEEDS | {Need.DAMAGES, Need.PAIRS},
            cost=_warmup_cost,
            seeded=True,
            torch=True,
            damages=_shown_damages,
            keeps=_keeps,
        ),
    ]


@hookimpl
def selectmoe_commands() -> list[Command]:
    """Offer ``convert`` and ``verify``."""
    home = "selectmoe_olmoe.convert.commands"
    return [
        Command(
            "convert",
            "Turn a mixture-of-experts model into a Select-MoE model.",
            f"{home}:convert",
        ),
        Command("verify", "Compare a Select-MoE model with its original.", f"{home}:verify"),
    ]


def _keeps(config: WarmupConfig) -> frozenset[Need]:
    """Return what later stages find."""
    return frozenset() if config.checkpoint_every is None else frozenset({Need.CHECKPOINTS})


def _shown_damages(config: ContrastiveConfig) -> list[str] | None:
    """Return the kinds of damage that copies get; ``None`` is all that plugins offer."""
    if config.damages is None:
        return None
    return [name for name, rate in config.damages.items() if rate > 0]


def _names(model: Mapping[str, Any]) -> ShapeNames | None:
    """Return the names of the sizes in a model's family."""
    kind = model.get("model_type")
    family = family_of_source(kind) or family_of_selector(kind)
    return family.names if family else None


def _conversion_cost(config: TrashcanConfig, work: Workload) -> Cost:
    if work.model is None:
        return Cost()
    source = Shape.of(work.model, _names(work.model))
    shape = replace(source, trash=config.num_trash_experts or source.top_k)
    stored = work.model.get("dtype") or work.model.get("torch_dtype") or "float32"
    return Cost(disk=weight_bytes(shape, stored))


def _warmup_cost(config: WarmupConfig, work: Workload) -> Cost:
    batch = config.batch_size
    rows = 2 if isinstance(config, ContrastiveConfig) else 1  # a copy is about as long
    tokens = rows * work.tokens * config.epochs
    if config.max_steps is not None:
        tokens = min(tokens, rows * config.max_steps * batch * work.length)
    if work.model is None:
        return Cost(tokens=tokens)
    shape = Shape.of(work.model, _names(work.model))
    micro = rows * config.micro_batch * work.length
    step = rows * config.batch_size * work.length
    whole = config.all_weights
    recompute = config.activation_checkpointing
    dtype = config.weights if whole else work.dtype
    trained = shape.parameters if whole else _trained(config, shape)
    optimizer = _optimizer_bytes(config, trained, dtype if whole else "float32")
    return Cost(
        tokens=tokens,
        flops=training_flops(shape, tokens, work.length, frozen=not whole, recompute=recompute),
        memory=weight_bytes(shape, dtype)
        + optimizer
        + activation_bytes(
            shape, min(step, max(micro, config.pass_tokens)), work.dtype, recompute=recompute
        ),
        # A checkpoint holds the trained weights and the optimizer's moments (no gradients, which
        # are as large as the weights); the result is gates or a whole model.
        disk=optimizer
        + (weight_bytes(shape, work.dtype) if config.trainable == "all" else 4.0 * trained),
    )


def _optimizer_bytes(config: WarmupConfig, trained: float, dtype: str) -> float:
    """Return bytes of the gradients in ``dtype`` and of the optimizer's moments."""
    moments = {
        "adamw": optimizer_bytes(1.0) - BYTES["float32"],
        "adamw_8bit": 2.0,
        "adafactor": 0.0,
    }
    return (BYTES[dtype] + moments[config.optimizer]) * trained


def _trained(config: WarmupConfig, shape: Shape) -> int:
    """Return the number of trained parameters if not all are trained."""
    gates = shape.layers * shape.router
    if config.peft_mode == "full_rank":
        return gates
    rank, _ = config.lora
    rows = shape.hidden + shape.experts + shape.trash
    if config.trainable == "router":
        return shape.layers * rank * rows
    return gates + shape.layers * 4 * rank * 2 * shape.hidden

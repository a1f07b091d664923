"""Options of the converter and of the warm-up."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, execution_only


class TrashcanConfig(Config):
    """Add trash-can experts to an OLMoE router: tokens that need no expert may go there.

    The defaults are the published method's.
    """

    num_trash_experts: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Trash cans a layer gets; by default as many as a token has slots (top-k)."""
    trash_can_init_mean: float = 0.0
    """Mean of the normal distribution that new gate rows are drawn from."""
    trash_can_init_std: NonNegativeFloat = 0.02
    """Standard deviation of the normal distribution that new gate rows are drawn from."""
    constraint_loss_weight: NonNegativeFloat = 0.01
    """Weight of the constraint in the training loss, written into the model's configuration."""
    constraint_alpha: PositiveFloat = 1.0
    """First parameter of the constraint's Beta distribution; 1 leaves out the term in log r."""
    constraint_beta: PositiveFloat = 2.0
    """Second parameter of the constraint's Beta distribution; above 1 it taxes experts."""
    balance_over: Literal["all", "regular"] = "all"
    """Balance the load over all outputs of the router, or over the regular experts alone."""
    router_aux_loss_coef: NonNegativeFloat | None = None
    """Weight of the balance loss; by default what the source model has."""


CONTRASTIVE: Mapping[str, Mapping[str, Any]] = {
    "router": {"learning_rate": 8e-3, "lm_weight": 0.0, "balance_over": "regular"},
    "all": {"learning_rate": 2e-4, "lm_weight": 0.2, "balance_over": "regular"},
}
"""Defaults of the contrastive objective, by what is trained: those of docs/evidence.md."""


class WarmupConfig(Config):
    """Train a selector's router on a sample of the pool: language-model loss, balance, objective.

    The defaults are the published method's, and with ``objective = "contrastive"`` what the
    evidence was measured with. A resumed run repeats an uninterrupted one.
    """

    objective: Literal["constraint", "contrastive"] = "constraint"
    """What moves the router: the published tax on experts, or telling examples from damaged twins;
    the options of ``contrastive`` are ``damages``, ``contrast_tokens``, ``contrast_layers``,
    ``bce_weight``, ``margin_weight`` and ``layer_weights``."""
    damages: Mapping[str, NonNegativeFloat] | None = None
    """Kinds of damage that twins get and how often each is drawn, relative to the others, as in
    ``{ answer_swap = 2, mojibake = 1 }``; by default every kind that plugins offer, at their own
    rates: the ones that only prompt and answer together show, more often."""
    contrast_tokens: Literal["end", "response"] = "end"
    """Where twins are told apart: at the last token of each answer, which alone has seen all of it,
    or by the mean over answers. The ``router`` scorer looks there too, unless told otherwise."""
    contrast_layers: Literal["together", "each"] = "together"
    """The layers make one logit together, or each has to tell twins apart by itself."""
    bce_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy on answers' trash mass: 1 for damaged ones, 0 for others."""
    margin_weight: NonNegativeFloat = 1.0
    """Weight of the loss that is small where a twin has more trash mass than its original."""
    layer_weights: tuple[NonNegativeFloat, ...] | None = None
    """How much each layer counts in both, relative to the others; by default all count alike."""
    lm_weight: NonNegativeFloat = 1.0
    """Weight of the language-model loss; twins take no part in it. By default 0 where
    ``contrastive`` trains the gates alone, and 0.2 where it trains everything."""
    peft_mode: Literal["full_rank", "lora"] = "full_rank"
    """Train the weights themselves, or low-rank additions to them."""
    trainable: Literal["router", "all"] = "router"
    """Only the gates, or everything; with ``lora``, ``all`` is attention beside full-rank gates."""
    optimizer: Literal["adamw", "adafactor", "adamw_8bit"] = "adamw"
    """AdamW, Adafactor (its second moments take next to no memory; no first moments), or AdamW with
    moments in 8 bits (needs bitsandbytes)."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """What the weights are kept in where all are trained; in bfloat16 they are rounded at random
    after a step. Gates stay in float32. 7B parameters fit 80 GB with ``bfloat16`` and any optimizer
    but ``adamw``."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate. By default 8e-3 where ``contrastive`` trains the gates alone, and 2e-4
    where it trains everything."""
    epochs: PositiveFloat = 4.0
    """Passes over the sample."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps; by default ``epochs`` decides."""
    batch_size: PositiveInt = 4
    """Examples of a forward pass, over which the load is balanced; processes share it where they
    cannot have one each. ``contrastive`` adds a twin to each example."""
    pass_tokens: PositiveInt = execution_only(16384)
    """On a GPU, forward passes of a step join while they have so many tokens together."""
    gradient_accumulation: PositiveInt = 1
    """Forward passes of an optimizer step, over all processes; the loss is the mean over all of
    their tokens."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate goes on after its rise."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient to this norm."""
    lora_rank: PositiveInt = 16
    """Rank of the additions; ``peft_mode = "lora"`` only."""
    lora_alpha: PositiveFloat = 32.0
    """Scale of the additions times their rank; ``peft_mode = "lora"`` only."""
    constraint_loss_weight: NonNegativeFloat | None = None
    """Weight of the constraint; by default the converted model's, and 0 with ``contrastive``."""
    constraint_alpha: PositiveFloat | None = None
    """First parameter of the constraint's Beta distribution; by default the model's."""
    constraint_beta: PositiveFloat | None = None
    """Second parameter of the constraint's Beta distribution; by default the model's."""
    balance_over: Literal["all", "regular"] | None = None
    """Which outputs of the router the balance loss covers; by default the model's, and with
    ``contrastive`` the regular experts', so that sound examples may leave the trash empty."""
    router_aux_loss_coef: NonNegativeFloat | None = None
    """Weight of the balance loss; by default the model's."""
    statistics: bool = True
    """Log the share of slots per layer that fall to the trash."""
    checkpoint_every: PositiveInt | None = None
    """Optimizer steps between checkpoints that are kept for later stages; by default none are."""
    checkpoint_minutes: PositiveFloat = execution_only(5.0)
    """Minutes between two checkpoints, the most that a killed run loses; the newest is kept."""
    activation_checkpointing: bool = execution_only(default=False)
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_objective(cls, table: Any) -> Any:  # noqa: ANN401
        if not isinstance(table, Mapping) or table.get("objective") != "contrastive":
            return table
        return {**CONTRASTIVE.get(str(table.get("trainable", "router")), {}), **table}

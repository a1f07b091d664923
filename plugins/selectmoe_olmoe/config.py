"""Options of the converter and of the two warm-ups."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, execution_only

CONSTRAINT_NAMES = {
    "alpha": "constraint_alpha",
    "beta": "constraint_beta",
    "aux_loss_coef": "router_aux_loss_coef",
}


class TrashcanConfig(Config):
    """Add trash-can experts to an OLMoE router: tokens that need no expert may go there.

    The defaults are the published method's.
    """

    other_names: ClassVar[Mapping[str, str]] = CONSTRAINT_NAMES

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


class WarmupConfig(Config):
    """What both warm-ups have: what is trained, in which steps, and how they are logged and kept.

    A resumed run repeats an uninterrupted one.
    """

    other_names: ClassVar[Mapping[str, str]] = {
        **CONSTRAINT_NAMES,
        "alpha": "lora_alpha",
        "gradient_accumulation": "micro_batch_size",
        "gradient_accumulation_steps": "micro_batch_size",
        "per_device_batch": "micro_batch_size",
        "per_device_train_batch_size": "micro_batch_size",
    }

    peft_mode: Literal["full_rank", "lora"] = "full_rank"
    """Train the weights themselves, or LoRA weights beside them."""
    trainable: Literal["router", "all"] = "router"
    """Only the gates, or everything; with ``lora``, ``all`` is attention beside full-rank gates."""
    optimizer: Literal["adamw", "adafactor", "adamw_8bit"] = "adamw"
    """AdamW, Adafactor (its second moments take next to no memory; no first moments), or AdamW with
    moments in 8 bits (needs bitsandbytes)."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """What the weights are kept in where all are trained; in bfloat16 they are rounded at random
    after a step. Gates stay in float32. 7B parameters fit 80 GB with ``bfloat16`` and any optimizer
    but ``adamw``."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate."""
    lm_weight: NonNegativeFloat | None = None
    """Weight of the language-model loss."""
    epochs: PositiveFloat = 4.0
    """Passes over the sample."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps; by default ``epochs`` decides."""
    batch_size: PositiveInt = 4
    """Examples of an optimizer step, over all processes; the loss is the mean over their tokens."""
    micro_batch_size: PositiveInt | None = None
    """Examples over which the load is balanced, a divisor of ``batch_size``; by default all of the
    step's. Each process takes whole micro-batches, or all processes share each micro-batch."""
    pass_tokens: PositiveInt = execution_only(16384)
    """On a GPU, micro-batches of a step join into forward passes of up to so many tokens."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate goes on after its rise."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient to this norm."""
    lora_rank: PositiveInt = 16
    """Rank of the LoRA weights; ``peft_mode = "lora"`` only."""
    lora_alpha: PositiveFloat = 32.0
    """Scale of the LoRA weights times their rank; ``peft_mode = "lora"`` only."""
    constraint_loss_weight: NonNegativeFloat | None = None
    """Weight of the constraint; by default the converted model's."""
    constraint_alpha: PositiveFloat | None = None
    """First parameter of the constraint's Beta distribution; by default the model's."""
    constraint_beta: PositiveFloat | None = None
    """Second parameter of the constraint's Beta distribution; by default the model's."""
    balance_over: Literal["all", "regular"] | None = None
    """Which outputs of the router the balance loss covers; by default the model's."""
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

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is trained with."""
        raise NotImplementedError

    @property
    def answer_weight(self) -> float:
        """The weight of the language-model loss that is trained with."""
        raise NotImplementedError

    @property
    def micro_batch(self) -> int:
        """Examples of a micro-batch."""
        return self.micro_batch_size or self.batch_size

    @property
    def all_weights(self) -> bool:
        """Whether all weights are trained at full rank."""
        return self.peft_mode == "full_rank" and self.trainable == "all"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"'batch_size' = {self.batch_size} is no multiple of "
                f"'micro_batch_size' = {self.micro_batch}"
            )
        return self


class ConstraintConfig(WarmupConfig):
    """Train the router of a Select-MoE model as published: a tax on experts beside the answer loss.

    The defaults are the published method's. A resumed run repeats an uninterrupted one.
    """

    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate."""
    lm_weight: NonNegativeFloat = 1.0
    """Weight of the language-model loss."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is trained with."""
        return self.learning_rate

    @property
    def answer_weight(self) -> float:
        """The weight of the language-model loss that is trained with."""
        return self.lm_weight


class ContrastiveConfig(WarmupConfig):
    """Train the router of a Select-MoE model to tell clean examples from corrupted copies of them.

    The defaults are those of the evidence (docs/evidence.md). No labels are needed: the copies are
    made of the sample itself. A resumed run repeats an uninterrupted one.
    """

    damages: Mapping[str, NonNegativeFloat] | None = None
    """Kinds of damage that the copies get and how often each is drawn, relative to the others, as
    in ``{ answer_swap = 2, mojibake = 1 }``; by default every kind that plugins offer, at its own
    rate: kinds that only prompt and answer together show come more often."""
    contrast_tokens: Literal["end", "response"] = "end"
    """Where an example and its copy are told apart: at the last token of each answer, which alone
    has seen all of it, or by the mean over answers. The ``router`` scorer looks there too, unless
    told otherwise."""
    contrast_layers: Literal["together", "each"] = "together"
    """The layers make one logit together, or each layer has to tell them apart by itself."""
    bce_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy on answers' trash mass: 1 for corrupted ones, 0 for clean."""
    margin_weight: NonNegativeFloat = 1.0
    """Weight of the loss that is small where a copy has more trash mass than its original."""
    layer_weights: tuple[NonNegativeFloat, ...] | None = None
    """How much each layer counts in both losses, relative to the others; by default all count
    alike."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. By default 8e-3 with ``trainable = "router"`` (gates alone need a large
    one) and 2e-4 with ``trainable = "all"``."""
    lm_weight: NonNegativeFloat | None = None
    """Weight of the language-model loss; corrupted copies take no part in it. By default 0 with
    ``trainable = "router"`` and 0.2 with ``trainable = "all"``."""
    batch_size: PositiveInt = 4
    """Examples of an optimizer step, over all processes, not counting their corrupted copies."""
    constraint_loss_weight: NonNegativeFloat = 0.0
    """Weight of the constraint: off, since its tax falls on clean and corrupted alike."""
    balance_over: Literal["all", "regular"] = "regular"
    """Which outputs of the router the balance loss covers: the regular experts alone, so that clean
    examples may leave the trash empty."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is trained with."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 8e-3 if self.trainable == "router" else 2e-4

    @property
    def answer_weight(self) -> float:
        """The weight of the language-model loss that is trained with."""
        if self.lm_weight is not None:
            return self.lm_weight
        return 0.0 if self.trainable == "router" else 0.2

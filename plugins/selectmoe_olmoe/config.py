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
LORA_RANK, LORA_ALPHA = 16, 32.0


class TrashcanConfig(Config):
    """Expand an OLMoE router by trash-can experts, for tokens that need no expert.

    The defaults are those of the published method.
    """

    other_names: ClassVar[Mapping[str, str]] = CONSTRAINT_NAMES

    num_trash_experts: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Number of trash cans per layer; by default as many as a token has slots (top-k)."""
    trash_can_init_mean: float = 0.0
    """Mean of the normal distribution that new gate rows are drawn from."""
    trash_can_init_std: NonNegativeFloat = 0.02
    """Standard deviation of the normal distribution that new gate rows are drawn from."""
    trash_can_init: Literal["normal", "experts"] = "normal"
    """``experts`` adds the normal draws to copies of experts' rows of the same gate, drawn without
    replacement, so that trash cans begin with as much probability as experts have."""
    constraint_loss_weight: NonNegativeFloat = 0.01
    """Weight of the constraint in the training loss; it is stored in the model's configuration."""
    constraint_alpha: PositiveFloat = 1.0
    """First parameter of the constraint's Beta distribution; with 1 there is no term in log r."""
    constraint_beta: PositiveFloat = 2.0
    """Second parameter of the constraint's Beta distribution; above 1 it taxes experts."""
    balance_over: Literal["all", "regular", "grouped"] = "all"
    """Balance the load over all outputs of the router, only over the regular experts, or over both
    with the trash cans ``grouped``: each counts with their mean load."""
    router_aux_loss_coef: NonNegativeFloat | None = None
    """Weight of the balance loss; by default that of the source model."""


class WarmupConfig(Config):
    """Options of both warm-ups: what is trained, in which steps, and what is logged and stored.

    A resumed run equals an uninterrupted one.
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
    """Train the weights themselves, or LoRA weights in addition to them."""
    trainable: Literal["router", "all"] = "router"
    """Train only the gates, or all weights; with ``lora``, ``all`` means full-rank gates and
    attention."""
    optimizer: Literal["adamw", "adafactor", "adamw_8bit"] = "adamw"
    """AdamW, Adafactor (no first moments, and second moments that take almost no memory), or AdamW
    with moments in 8 bits (needs bitsandbytes)."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Data type of the weights if all are trained; bfloat16 weights are rounded stochastically
    after each step. Gates stay in float32. 7B parameters fit 80 GB with ``bfloat16`` and an
    optimizer other than ``adamw``."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate."""
    lm_weight: NonNegativeFloat | None = None
    """Weight of the language-model loss."""
    epochs: PositiveFloat = 4.0
    """Passes over the sample."""
    max_steps: PositiveInt | None = None
    """Stop after this number of optimizer steps; by default ``epochs`` decides."""
    batch_size: PositiveInt = 4
    """Examples of an optimizer step, over all processes; the loss is the mean over their tokens."""
    micro_batch_size: PositiveInt | None = None
    """Examples over which the load is balanced, a divisor of ``batch_size``; by default all of the
    step's. Each process takes whole micro-batches, or all processes share each micro-batch."""
    pass_tokens: PositiveInt = execution_only(16384)
    """On a GPU, micro-batches of a step are joined into passes of up to this many tokens."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """The schedule of the learning rate after its warm-up."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient to this norm."""
    lora_rank: PositiveInt | None = None
    """Rank of the LoRA weights, by default 16; only with ``peft_mode = "lora"``."""
    lora_alpha: PositiveFloat | None = None
    """The product of the LoRA weights is multiplied by ``lora_alpha / lora_rank``; by default 32,
    and only with ``peft_mode = "lora"``."""
    constraint_loss_weight: NonNegativeFloat | None = None
    """Weight of the constraint; by default the converted model's."""
    constraint_alpha: PositiveFloat | None = None
    """First parameter of the constraint's Beta distribution; by default the model's."""
    constraint_beta: PositiveFloat | None = None
    """Second parameter of the constraint's Beta distribution; by default the model's."""
    balance_over: Literal["all", "regular", "grouped"] | None = None
    """Which outputs of the router the balance loss covers; by default the model's setting."""
    router_aux_loss_coef: NonNegativeFloat | None = None
    """Weight of the balance loss; by default the model's."""
    statistics: bool = True
    """Log the share of slots in each layer that go to trash cans, and measure how slots are shared
    among experts and trash cans before and after the training."""
    checkpoint_every: PositiveInt | None = None
    """Optimizer steps between checkpoints that are kept for later stages; by default none."""
    checkpoint_minutes: PositiveFloat = execution_only(5.0)
    """Minutes between two checkpoints: a killed run loses at most this time. Only the newest is
    kept."""
    activation_checkpointing: bool = execution_only(default=False)
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate of the training."""
        raise NotImplementedError

    @property
    def answer_weight(self) -> float:
        """The weight of the language-model loss in the training."""
        raise NotImplementedError

    @property
    def micro_batch(self) -> int:
        """Examples of a micro-batch."""
        return self.micro_batch_size or self.batch_size

    @property
    def lora(self) -> tuple[int, float]:
        """Rank and alpha of the LoRA weights."""
        return self.lora_rank or LORA_RANK, self.lora_alpha or LORA_ALPHA

    @property
    def all_weights(self) -> bool:
        """Whether all weights are trained at full rank."""
        return self.peft_mode == "full_rank" and self.trainable == "all"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"'batch_size' = {self.batch_size} is not a multiple of "
                f"'micro_batch_size' = {self.micro_batch}"
            )
        for name in ("lora_rank", "lora_alpha"):
            if self.peft_mode != "lora" and getattr(self, name) is not None:
                raise ValueError(f"'{name}' has no effect without peft_mode = \"lora\"")
        return self


class ConstraintConfig(WarmupConfig):
    """Warm up a Select-MoE model as published: the answer loss and a tax on the use of experts.

    The defaults are those of the published method. A resumed run equals an uninterrupted one.
    """

    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate."""
    lm_weight: NonNegativeFloat = 1.0
    """Weight of the language-model loss."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate of the training."""
        return self.learning_rate

    @property
    def answer_weight(self) -> float:
        """The weight of the language-model loss in the training."""
        return self.lm_weight


class ContrastiveConfig(WarmupConfig):
    """Warm up a Select-MoE model to separate clean examples from their corrupted copies.

    The defaults are those of docs/lab-notes.md. No labels are needed: the copies are made of the
    sample itself; ``[warmup.pairs]`` gives preferences in their place, or beside them. A resumed
    run equals an uninterrupted one.
    """

    damages: Mapping[str, NonNegativeFloat] | None = None
    """The kinds of damage of the copies and their relative rates, for example
    ``{ answer_swap = 2, mojibake = 1 }``. By default every kind that plugins offer, at its own
    rate; kinds that are visible only from prompt and answer together are more frequent."""
    contrast_tokens: Literal["end", "response"] = "end"
    """The tokens at which an example and its copy are compared: the last token of each answer (the
    only one that attends to all of it), or the mean over all answer tokens. The ``router`` scorer
    uses the same tokens by default."""
    contrast_layers: Literal["together", "each"] = "together"
    """All layers together give one logit, or each layer alone must separate the two."""
    bce_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy of the answers' trash mass, with the target 1 for corrupted and
    0 for clean answers."""
    margin_weight: NonNegativeFloat = 1.0
    """Weight of the ranking loss, small if a copy has more trash mass than its original."""
    place_weight: NonNegativeFloat = 0.0
    """Weight of a second contrast, by the tokens around the damaged place alone: those of the copy
    against those of the same place in the example. With 0 there is none."""
    place_window: PositiveInt = 4
    """Tokens behind the damaged place that ``place_weight`` counts too; they attend to it."""
    layer_weights: tuple[NonNegativeFloat, ...] | None = None
    """The relative weight of each layer in both losses; by default all are equal."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. By default 8e-3 with ``trainable = "router"`` (gates alone need a large
    one) and 2e-4 with ``trainable = "all"``."""
    lm_weight: NonNegativeFloat | None = None
    """Weight of the language-model loss, which excludes corrupted copies. By default 0 with
    ``trainable = "router"`` and 0.2 with ``trainable = "all"``."""
    batch_size: PositiveInt = 4
    """Examples of an optimizer step, over all processes, not counting their corrupted copies."""
    constraint_loss_weight: NonNegativeFloat = 0.0
    """Weight of the constraint; off by default, because it taxes clean and corrupted alike."""
    balance_over: Literal["all", "regular", "grouped"] = "regular"
    """Which outputs of the router the balance loss covers; by default only the regular experts, so
    that clean examples need not use the trash cans. ``grouped``: all, with the trash cans as one
    group."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate of the training."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 8e-3 if self.trainable == "router" else 2e-4

    @property
    def answer_weight(self) -> float:
        """The weight of the language-model loss in the training."""
        if self.lm_weight is not None:
            return self.lm_weight
        return 0.0 if self.trainable == "router" else 0.2

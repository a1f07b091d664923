"""Options of the LoRA trainer."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from selectmoe_core.config import Config, execution_only

Projection = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"
]


class LoraTrainingConfig(Config):
    """Fine-tune a Llama-architecture model with LoRA on what was selected.

    The defaults are the published method's. A run that is resumed on a CPU repeats an uninterrupted
    one to the last bit.
    """

    total_batch: PositiveInt = 128
    """Examples of an optimizer step, over all processes and accumulated forward passes."""
    per_device_batch: PositiveInt | None = execution_only(None)
    """Examples of a forward pass; by default as many as make ``pass_tokens``."""
    pass_tokens: PositiveInt | None = execution_only(None)
    """Tokens of a forward pass; by default 8192 on a GPU, 4096 there without checkpointing, 2048 on
    the CPU. More keep a GPU busy, fewer save memory."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate of AdamW."""
    epochs: PositiveFloat = 4.0
    """Passes over the examples."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps; by default ``epochs`` decides."""
    r: PositiveInt = 128
    """Rank of the additions to each weight."""
    alpha: PositiveFloat = 512.0
    """The additions are scaled by ``alpha / r``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the additions' inputs."""
    target_modules: Annotated[tuple[Projection, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    )
    """The linear layers that get additions."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate goes on after its rise."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient to this norm."""
    packing: bool = execution_only(default=True)
    """Lay examples end to end instead of padding each to the longest; none sees another."""
    packed_length: PositiveInt = execution_only(2048)
    """Longest row that packing makes; a single example may be longer."""
    activation_checkpointing: bool = execution_only(default=False)
    """Recompute activations in the backward pass: less memory, about a third more time."""
    checkpoint_minutes: PositiveFloat = execution_only(5.0)
    """Minutes between two checkpoints, the most that a killed run loses."""
    merge: bool = False
    """Also write the full model, additions merged in, into ``merged`` beside the adapter."""

"""Options of the LoRA trainer."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, execution_only

CPU_TOKENS, GPU_TOKENS, RECOMPUTED_TOKENS = 2048, 4096, 8192
"""Default tokens of a forward pass; too few do not use a GPU fully. With a 7B model 4096 take
32 GiB with all activations, and 8192 take 17 GiB with checkpointing."""

LARGE = 1 << 30
"""A limit for examples, tokens and steps that no run reaches."""

Projection = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"
]


class LoraTrainingConfig(Config):
    """Fine-tune a Llama-architecture model with LoRA on the selected examples.

    The defaults are those of the published method. On a CPU a resumed run equals an uninterrupted
    one to the last bit.
    """

    batch_size: Annotated[PositiveInt, Field(le=LARGE)] = 128
    """Examples of an optimizer step, over all processes and accumulated forward passes."""
    per_device_batch: Annotated[PositiveInt, Field(le=LARGE)] | None = execution_only(None)
    """The most examples of a forward pass; by default only ``pass_tokens`` limits them."""
    pass_tokens: Annotated[PositiveInt, Field(le=LARGE)] | None = execution_only(None)
    """The most tokens of a forward pass; by default 4096 on a GPU, 8192 with
    ``activation_checkpointing``, 2048 on the CPU. More use a GPU better, fewer save memory."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate of AdamW."""
    epochs: Annotated[PositiveFloat, Field(le=1e6)] = 4.0
    """Passes over the examples."""
    max_steps: Annotated[PositiveInt, Field(le=LARGE)] | None = None
    """Stop after this number of optimizer steps; by default ``epochs`` decides."""
    lora_rank: Annotated[PositiveInt, Field(le=1 << 14)] = 128
    """Rank of the LoRA weights."""
    lora_alpha: PositiveFloat = 512.0
    """The product of the LoRA weights is multiplied by ``lora_alpha / lora_rank``."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the LoRA weights' inputs."""
    target_modules: Annotated[tuple[Projection, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    )
    """The linear layers that get LoRA weights."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """The schedule of the learning rate after its warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient to this norm."""
    packing: bool = execution_only(default=True)
    """Join examples in one sequence instead of padding them; no example attends to another."""
    compile: bool | None = execution_only(None)
    """Compile the decoder's layers: this takes up to 90 seconds at the start and is then 40 %
    faster. By default it is done on an NVIDIA GPU if the attention allows it and a process trains
    long enough: on 4 million tokens for a 7B model, and on more in proportion for a smaller one."""
    activation_checkpointing: bool = execution_only(default=False)
    """Recompute activations in the backward pass: less memory, about a third more time."""
    quantization: Literal["none", "nf4"] = "none"
    """``nf4`` stores the frozen weights in 4 bits (QLoRA). This takes about a quarter of the
    memory, but the weights are dequantised for every product, and layers are never compiled. It
    needs ``pip install 'selectmoe[qlora]'``."""
    checkpoint_every: Annotated[PositiveInt, Field(le=LARGE)] | Literal["epoch"] | None = None
    """Keep a checkpoint for later stages after each ``"epoch"`` or after this number of steps, and
    after the last step; by default none. It has the adapter in PEFT's layout, the learning rate and
    Adam's moments of each weight, and stays in the stage's folder."""
    keep_checkpoints: Annotated[PositiveInt, Field(le=LARGE)] | Literal["all"] = "all"
    """How many of these checkpoints are kept, the newest; ``"all"`` keeps every one."""
    checkpoint_minutes: Annotated[PositiveFloat, Field(le=1e6)] = execution_only(5.0)
    """Minutes between two checkpoints: a killed run loses at most this time."""
    merge: bool = False
    """Also write the full model with merged LoRA weights, into ``merged`` next to the adapter. They
    are merged into the original weights, never into 4-bit ones."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quantization != "none" and self.compile:
            raise ValueError(
                f"'compile' cannot be used with quantization = \"{self.quantization}\""
            )
        if self.keep_checkpoints != "all" and self.checkpoint_every is None:
            raise ValueError("'keep_checkpoints' has no effect without 'checkpoint_every'")
        return self


def pass_tokens(config: LoraTrainingConfig, device: str) -> int:
    """Return the most tokens of a forward pass."""
    if config.pass_tokens is not None:
        return config.pass_tokens
    if device == "cpu":
        return CPU_TOKENS
    return RECOMPUTED_TOKENS if config.activation_checkpointing else GPU_TOKENS

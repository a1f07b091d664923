"""Options of the LoRA trainer."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from selectmoe_core import Config, execution_only

CPU_TOKENS, GPU_TOKENS, RECOMPUTED_TOKENS = 2048, 4096, 8192
"""Tokens of a forward pass where the options leave it open; small ones leave a GPU waiting. Of a
7B model 4096 with all activations take 32 GiB, 8192 with checkpointing 17 GiB."""

LARGE = 1 << 30
"""More examples, tokens or steps than any run has."""

Projection = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"
]


class LoraTrainingConfig(Config):
    """Fine-tune a Llama-architecture model with LoRA on what was selected.

    The defaults are the published method's. A run that is resumed on a CPU repeats an uninterrupted
    one to the last bit.
    """

    batch_size: Annotated[PositiveInt, Field(le=LARGE)] = 128
    """Examples of an optimizer step, over all processes and accumulated forward passes."""
    per_device_batch: Annotated[PositiveInt, Field(le=LARGE)] | None = execution_only(None)
    """Examples of a forward pass at most; by default as many as ``pass_tokens`` hold."""
    pass_tokens: Annotated[PositiveInt, Field(le=LARGE)] | None = execution_only(None)
    """Tokens of a forward pass at most; by default 4096 on a GPU, 8192 with
    ``activation_checkpointing``, 2048 on the CPU. More keep a GPU busy, fewer save memory."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate of AdamW."""
    epochs: Annotated[PositiveFloat, Field(le=1e6)] = 4.0
    """Passes over the examples."""
    max_steps: Annotated[PositiveInt, Field(le=LARGE)] | None = None
    """Stop after so many optimizer steps; by default ``epochs`` decides."""
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
    """How the learning rate goes on after its rise."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient to this norm."""
    packing: bool = execution_only(default=True)
    """Lay examples end to end instead of padding each to the longest; none sees another."""
    compile: bool | None = execution_only(None)
    """Compile the decoder's layers: up to a minute and a half at the start, then two fifths faster.
    By default on an NVIDIA GPU where the attention allows it and a process trains enough to gain
    that time back: 4 million tokens of a 7B model, as many times more of a smaller one."""
    activation_checkpointing: bool = execution_only(default=False)
    """Recompute activations in the backward pass: less memory, about a third more time."""
    quantization: Literal["none", "nf4"] = "none"
    """``nf4`` holds the frozen weights in 4 bits (QLoRA): about a quarter of their memory, but they
    are spread out anew for every product, and layers are never compiled. Needs
    ``pip install 'selectmoe[qlora]'``."""
    checkpoint_minutes: Annotated[PositiveFloat, Field(le=1e6)] = execution_only(5.0)
    """Minutes between two checkpoints, the most that a killed run loses."""
    merge: bool = False
    """Also write the full model, LoRA weights merged in, into ``merged`` beside the adapter. They
    are merged into the weights as they were read, never into 4 bits."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quantization != "none" and self.compile:
            raise ValueError(f"'compile' cannot be with quantization = \"{self.quantization}\"")
        return self


def pass_tokens(config: LoraTrainingConfig, device: str) -> int:
    """Return the tokens that a forward pass may hold."""
    if config.pass_tokens is not None:
        return config.pass_tokens
    if device == "cpu":
        return CPU_TOKENS
    return RECOMPUTED_TOKENS if config.activation_checkpointing else GPU_TOKENS

"""Options of the embedder."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from selectmoe_core import Config, execution_only


class LoraGradientsConfig(Config):
    """Gradients of the LoRA weights at each checkpoint of a warm-up, randomly projected (LESS).

    The warm-up must be `use = "llama-lora"` with `checkpoint_every = "epoch"`; any Llama-like model
    that it trains will do, and other adapters only if they are plain LoRA weights on linear layers.
    The loss of an example is the mean over its answer tokens. Its gradient is projected to
    `dimensions` numbers and normalised for each checkpoint; the vector is all of these, each times
    the root of the checkpoint's share of the learning rates, so the cosine of two vectors is the
    weighted mean of the checkpoints' cosines.
    """

    dimensions: Annotated[PositiveInt, Field(le=1 << 20)] = 8192
    """Numbers that a gradient becomes at each checkpoint. The cosine of two gradients changes by
    about one over the root of this."""
    projection: Literal["count-sketch", "rademacher"] = "count-sketch"
    """`rademacher` is a dense matrix of random signs, as in LESS; its time grows with LoRA weights
    times `dimensions`. `count-sketch` adds each entry to one of `dimensions` sums with a random
    sign: inner products have the same mean and the same bound on their variance, in one addition
    an entry."""
    preconditioner: Literal["paper", "released-code"] = "paper"
    """How Adam's moments change the gradients of the pool (those of targets stay as they are).
    `paper`: the next step of Adam, with corrected bias. `released-code`: no correction, and the
    epsilon of 1e-8 under the root, as in the program that was released with LESS."""
    pass_tokens: Annotated[PositiveInt, Field(le=1 << 30)] | None = execution_only(None)
    """The most tokens of a pass, with padding; by default 2048 on the CPU, and on a GPU what about
    18 GB of activations, or half of what is free, can hold: 4096 of a 7B model, more of a small
    one."""
    compile: bool | None = execution_only(None)
    """Compile the projection, which takes half a minute at the start; by default on a GPU."""

"""The cost of a stage: every formula that ``plan`` uses, with its source.

Tokens are counted as the model reads them; a multiply and an add are two FLOPs. All figures
are estimates; those that rest on a guess (a pool not yet tokenised, a device not measured) are
marked by ``estimated``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BYTES",
    "CHARACTERS_PER_TOKEN",
    "DEVICES",
    "Cost",
    "Device",
    "Shape",
    "ShapeNames",
    "Workload",
    "activation_bytes",
    "forward_flops",
    "optimizer_bytes",
    "seconds",
    "training_flops",
    "weight_bytes",
]

CHARACTERS_PER_TOKEN = 4.0
"""English text under a BPE of 32,000 to 50,000 entries; a guess until tokens are counted."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Device:
    """A device to estimate for.

    Attributes:
        name: its name in the table.
        flops: highest dense matmul rate in FLOP/s, in the dtype that stages use on it.
        share: the share of that rate that whole stages reach.
        memory: bytes of memory, or 0 if it is the machine's main memory.
        source: where the figures come from.
    """

    name: str
    flops: float
    share: float
    memory: float
    source: str


DEVICES = {
    "h100": Device("h100", 750e12, 0.22, 80e9, "bf16 8192^3 matmul, measured; share: grouped_mm"),
    "h200": Device("h200", 790e12, 0.22, 141e9, "bf16 8192^3 matmul, measured; share as on H100"),
    "a100": Device("a100", 312e12, 0.22, 80e9, "vendor's dense bf16 peak; share as on H100"),
    "rtx4090": Device("rtx4090", 165e12, 0.22, 24e9, "vendor's dense bf16 peak; share guessed"),
    "cpu": Device("cpu", 50e9, 0.5, 0.0, "per core, fp32, AVX-512 at about 2 GHz; share guessed"),
}


@dataclass(frozen=True)
class ShapeNames:
    """The names of a family's sizes in ``config.json``.

    The first name that exists counts. The defaults are the names that most families use. In a
    mixture of experts ``intermediate`` is the width of one expert.
    """

    layers: tuple[str, ...] = ("num_hidden_layers",)
    hidden: tuple[str, ...] = ("hidden_size",)
    intermediate: tuple[str, ...] = ("moe_intermediate_size", "intermediate_size")
    experts: tuple[str, ...] = ("num_experts", "num_local_experts", "n_routed_experts")
    top_k: tuple[str, ...] = ("num_experts_per_tok",)
    trash: tuple[str, ...] = ("num_trash_experts",)

    def find(self, config: Mapping[str, Any], size: str) -> Any:  # noqa: ANN401
        """Return a size from ``config.json``, or ``None``; ``size`` is a field of this class."""
        names: tuple[str, ...] = getattr(self, size)
        return next((config[name] for name in names if config.get(name) is not None), None)


@dataclass(frozen=True)
class Shape:
    """The sizes in a decoder's ``config.json`` that costs depend on."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int
    head_size: int
    experts: int = 0
    top_k: int = 0
    trash: int = 0
    tied: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], names: ShapeNames | None = None) -> "Shape":
        """Read a decoder's configuration, dense or a mixture of experts.

        Args:
            config: ``config.json``.
            names: the names of the sizes in its family; by default the most common ones.

        Raises:
            KeyError: a size is missing.
        """
        names = names or ShapeNames()
        needed = {size: names.find(config, size) for size in ("layers", "hidden", "intermediate")}
        if missing := [size for size, value in needed.items() if value is None]:
            raise KeyError(f"config.json does not say {', '.join(missing)}")
        heads, hidden = int(config["num_attention_heads"]), int(needed["hidden"])
        return cls(
            layers=int(needed["layers"]),
            hidden=hidden,
            intermediate=int(needed["intermediate"]),
            vocabulary=int(config["vocab_size"]),
            heads=heads,
            key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or hidden // heads),
            experts=int(names.find(config, "experts") or 0),
            top_k=int(names.find(config, "top_k") or 0),
            trash=int(names.find(config, "trash") or 0),
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def attention(self) -> int:
        """Parameters of one layer's q, k, v and o projections."""
        width = self.head_size * (2 * self.heads + 2 * self.key_value_heads)
        return self.hidden * width

    @property
    def expert(self) -> int:
        """Parameters of one gated feed-forward block: gate, up and down."""
        return 3 * self.hidden * self.intermediate

    @property
    def router(self) -> int:
        """Parameters of one layer's router."""
        return self.hidden * (self.experts + self.trash) if self.experts else 0

    @property
    def parameters(self) -> int:
        """All parameters except the norms, which are less than a thousandth."""
        blocks = self.attention + self.expert * max(self.experts, 1) + self.router
        return self.layers * blocks + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def active(self) -> int:
        """Parameters that one token passes through in the layers (no embedding, no head)."""
        return self.layers * (self.attention + self.expert * max(self.top_k, 1) + self.router)

    @property
    def head(self) -> int:
        """Parameters of the language-model head."""
        return self.vocabulary * self.hidden


def forward_flops(shape: Shape, tokens: float, length: float, *, head: bool) -> float:
    """Return FLOPs of a forward pass.

    2 per active parameter and token, and 2 x 2 x length/2 x heads x head size for causal attention
    (Kaplan et al. 2020, section 2.1; the half is the causal mask).
    """
    attention = 2 * length * shape.layers * shape.heads * shape.head_size
    weights = shape.active + (shape.head if head else 0)
    return tokens * (2 * weights + attention)


def training_flops(
    shape: Shape, tokens: float, length: float, *, frozen: bool, recompute: bool
) -> float:
    """Return FLOPs of forward and backward.

    The backward pass costs as much as two forward passes: one for the gradient of the activations
    and one for that of the weights. Frozen weights (LoRA, router only) save the second. Activation
    checkpointing adds a forward pass.
    """
    passes = 1 + (1 if frozen else 2) + (1 if recompute else 0)
    return passes * forward_flops(shape, tokens, length, head=True)


def weight_bytes(shape: Shape, dtype: str) -> float:
    """Return bytes of the weights."""
    return float(shape.parameters * BYTES.get(dtype, 4))


def optimizer_bytes(trainable: float) -> float:
    """Return bytes of a trained parameter's fp32 gradient and two fp32 Adam moments."""
    return 12.0 * trainable


def activation_bytes(shape: Shape, tokens: float, dtype: str, *, recompute: bool) -> float:
    """Return bytes of activations kept for the backward pass of ``tokens`` at once.

    About 34 x hidden bytes a token and layer in 16 bit (Korthikanti et al. 2022, equation 2,
    without attention maps), the feed-forward part scaled by the active width; with checkpointing
    one hidden state a layer. The fp32 logits come on top.
    """
    width = BYTES.get(dtype, 4)
    feed_forward = 3 * shape.intermediate * max(shape.top_k, 1)
    of_layer = width * shape.hidden if recompute else width * (8 * shape.hidden + feed_forward)
    return tokens * (shape.layers * of_layer + 4 * shape.vocabulary)


@dataclass(frozen=True)
class Workload:
    """What a component's cost function receives.

    Attributes:
        examples: examples to work on.
        tokens: tokens in them, under the model's tokenizer.
        estimated: whether ``tokens`` is estimated from characters.
        model: the model's ``config.json``, or ``None`` if it cannot be read offline.
        dtype: dtype the stage will run in.
    """

    examples: float
    tokens: float
    estimated: bool
    model: Mapping[str, Any] | None
    dtype: str

    @property
    def length(self) -> float:
        """Mean tokens of an example."""
        return self.tokens / max(self.examples, 1)


@dataclass(frozen=True)
class Cost:
    """What a component expects to use; ``None`` means unknown.

    Attributes:
        examples: examples in the result: those that a reader expects to find or a selector keeps.
        tokens: tokens passed through the model in all epochs; for a reader, tokens of the pool.
        flops: floating-point operations.
        memory: peak bytes on the device.
        disk: bytes written.
    """

    examples: float | None = None
    tokens: float | None = None
    flops: float | None = None
    memory: float | None = None
    disk: float | None = None


def seconds(cost: Cost, device: Device, cores: int = 1) -> float | None:
    """Return seconds at the rate that whole stages reach on the device, without start-up."""
    if cost.flops is None:
        return None
    rate = device.flops * device.share * (cores if device.name == "cpu" else 1)
    return cost.flops / rate

"""Families of mixture-of-experts models that can be converted: one entry each, without torch.

A new family is an entry of ``FAMILIES`` and its model classes, as ``model/modeling.py`` has them
for OLMoE. Conversion, verification, warm-up and costs read the entry.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from selectmoe_core import ModelError
from selectmoe_core.cost import ShapeNames


@dataclass(frozen=True)
class TensorNames:
    """Names of a checkpoint's tensors, in the layout of one tensor per expert.

    ``{layer}`` and ``{expert}`` are numbers from 0.

    Attributes:
        gate: the router's weight, ``[experts, hidden]``: the only tensor that conversion changes.
        whole: tensors of the model as a whole.
        head: the language-model head, absent if it is tied to the embedding.
        layer: further tensors of a layer.
        attention: projections of a layer's attention; each has a ``weight``, and a ``bias`` where
            the configuration says so.
        expert: tensors of one expert.
    """

    gate: str
    whole: tuple[str, ...]
    head: str
    layer: tuple[str, ...]
    attention: tuple[str, ...]
    expert: tuple[str, ...]

    @property
    def gate_parameter(self) -> str:
        """The gate's name within a layer, such as ``mlp.gate.weight``."""
        return self.gate.partition("{layer}.")[2]

    @property
    def gate_module(self) -> str:
        """The last part of the name of the module that holds the gate, such as ``gate``."""
        return self.gate.split(".")[-2]

    @property
    def attention_modules(self) -> list[str]:
        """The last parts of the names of the attention's projections, such as ``q_proj``."""
        return [name.rpartition(".")[2] for name in self.attention]


@dataclass(frozen=True)
class MoeFamily:
    """What differs between architectures.

    Attributes:
        model_type: ``model_type`` in the source's ``config.json``.
        selector_type: ``model_type`` of the Select-MoE model made from it.
        architecture: the name of that model's class.
        example: a model of the family, for hints.
        tensors: names in the checkpoint.
        register: makes transformers know our classes; a function that imports them, so that their
            code counts as the code of what loads such a model.
        experts_class: transformers' module of the experts, as ``module:class``, which conversion
            does not change.
        names: the names of the sizes in ``config.json``.
        defaults: transformers' defaults for sizes that ``config.json`` does not have.
        tied_field: the field of ``config.json`` that says whether the head is the embedding.
        bias_field: the one that says whether attention has biases.
        top_k_normalized: whether the weights of a token's experts are scaled to a sum of 1: a field
            of ``config.json``, or the same for the whole family.
    """

    model_type: str
    selector_type: str
    architecture: str
    example: str
    tensors: TensorNames
    register: Callable[[], None]
    experts_class: str
    names: ShapeNames = field(default_factory=ShapeNames)
    defaults: Mapping[str, int] = field(default_factory=dict)
    tied_field: str = "tie_word_embeddings"
    bias_field: str = "attention_bias"
    top_k_normalized: str | bool = True

    def normalizes(self, config: object) -> bool:
        """Return whether the router of a model with this configuration object scales weights."""
        if isinstance(self.top_k_normalized, bool):
            return self.top_k_normalized
        return bool(getattr(config, self.top_k_normalized))

    def gate(self, layer: int) -> str:
        """Return the name of a layer's gate weight."""
        return self.tensors.gate.format(layer=layer)

    def gates(self, layers: int) -> dict[str, int]:
        """Map the name of each gate weight to its layer."""
        return {self.gate(layer): layer for layer in range(layers)}

    def experts(self) -> Any:  # noqa: ANN401
        """Return transformers' class of the experts."""
        module, _, name = self.experts_class.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class MoeShape:
    """The sizes of a model, which its checkpoint must match.

    transformers' own class is not used: importing it takes longer than copying some checkpoints.
    """

    hidden: int
    layers: int
    experts: int
    top_k: int
    tied: bool = False
    biased: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], family: MoeFamily, where: str) -> "MoeShape":
        """Read ``config.json``, with transformers' defaults for what it leaves out.

        Raises:
            ModelError: names a field that is not a number above 0, or not true or false, or sizes
                that contradict each other.
        """
        sizes = {size: _size(config, family, size, where) for size in _SIZES}
        flags = {
            name: _flag(config, name, where) for name in (family.tied_field, family.bias_field)
        }
        shape = cls(**sizes, tied=flags[family.tied_field], biased=flags[family.bias_field])
        if shape.top_k > shape.experts:
            top_k, experts = family.names.top_k[0], family.names.experts[0]
            raise ModelError(
                f"{where}: {top_k} is {shape.top_k}, but {experts} is {shape.experts}: a token "
                "cannot have more experts than there are",
                hint=f"correct {where}, or download the checkpoint again",
            )
        return shape

    def tensors(self, family: MoeFamily) -> Iterator[str]:
        """Yield the names of all tensors of a checkpoint in the per-expert layout."""
        names = family.tensors
        yield from names.whole
        if not self.tied:
            yield names.head
        kinds = ("weight", "bias") if self.biased else ("weight",)
        for layer in range(self.layers):
            yield family.gate(layer)
            yield from (name.format(layer=layer) for name in names.layer)
            for part in names.attention:
                yield from (f"{part.format(layer=layer)}.{kind}" for kind in kinds)
            for expert in range(self.experts):
                yield from (name.format(layer=layer, expert=expert) for name in names.expert)

    def count(self, family: MoeFamily) -> int:
        """Return how many names ``tensors`` yields, without listing them."""
        names = family.tensors
        attention = len(names.attention) * (2 if self.biased else 1)
        layer = 1 + len(names.layer) + attention + self.experts * len(names.expert)
        return len(names.whole) + (0 if self.tied else 1) + self.layers * layer


_SIZES = ("hidden", "layers", "experts", "top_k")


def _size(config: Mapping[str, Any], family: MoeFamily, size: str, where: str) -> int:
    names: tuple[str, ...] = getattr(family.names, size)
    given = next((name for name in names if name in config), None)
    value = family.defaults.get(size) if given is None else config[given]
    if type(value) is not int or value < 1:
        raise ModelError(
            f"{where}: {given or names[0]} is {value!r}, not a whole number above 0",
            hint="download the checkpoint again",
        )
    return value


def _flag(config: Mapping[str, Any], name: str, where: str) -> bool:
    value = config.get(name, False)
    if not isinstance(value, bool):
        raise ModelError(
            f"{where}: {name} is {value!r}, not true or false", hint="download the checkpoint again"
        )
    return value


def _register_olmoe() -> None:
    from selectmoe_olmoe.model.modeling import register

    register()


OLMOE = MoeFamily(
    model_type="olmoe",
    selector_type="select_moe",
    architecture="SelectMoeForCausalLM",
    example="allenai/OLMoE-1B-7B-0125",
    tensors=TensorNames(
        gate="model.layers.{layer}.mlp.gate.weight",
        whole=("model.embed_tokens.weight", "model.norm.weight"),
        head="lm_head.weight",
        layer=tuple(
            f"model.layers.{{layer}}.{name}.weight"
            for name in (
                "input_layernorm",
                "post_attention_layernorm",
                "self_attn.q_norm",
                "self_attn.k_norm",
            )
        ),
        attention=tuple(f"model.layers.{{layer}}.self_attn.{part}_proj" for part in "qkvo"),
        expert=tuple(
            f"model.layers.{{layer}}.mlp.experts.{{expert}}.{part}_proj.weight"
            for part in ("gate", "up", "down")
        ),
    ),
    register=_register_olmoe,
    experts_class="transformers.models.olmoe.modeling_olmoe:OlmoeExperts",
    names=ShapeNames(
        intermediate=("intermediate_size",), experts=("num_experts", "num_local_experts")
    ),
    defaults={"hidden": 2048, "layers": 16, "experts": 64, "top_k": 8},
    top_k_normalized="norm_topk_prob",
)

FAMILIES = (OLMOE,)
"""Every family that can be converted."""


def family_of_source(model_type: object) -> MoeFamily | None:
    """Return the family of a source model's type, or ``None``."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def family_of_selector(model_type: object) -> MoeFamily | None:
    """Return the family of a Select-MoE model's type, or ``None``."""
    return next((family for family in FAMILIES if family.selector_type == model_type), None)

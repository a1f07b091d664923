"""An OLMoE checkpoint on disk: which shard holds which tensor, and what must be there."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, Field, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open

from selectmoe_core import ModelError

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
AGAIN = "download the checkpoint again"
SHOWN = 3


class OlmoeShape(BaseModel, frozen=True, strict=True):
    """The shape of an OLMoE, with transformers' defaults for what ``config.json`` leaves out.

    transformers' own class is not used: importing it takes longer than copying some checkpoints.
    """

    hidden_size: PositiveInt = 2048
    num_hidden_layers: PositiveInt = 16
    num_experts: PositiveInt = Field(
        64, validation_alias=AliasChoices("num_experts", "num_local_experts")
    )
    num_experts_per_tok: PositiveInt = 8
    tie_word_embeddings: bool = False
    attention_bias: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``config.json`` and safetensors shards.

    Attributes:
        folder: Where it is.
        config: ``config.json`` as written.
        shards: File name of each shard -> names of the tensors in it, in the file's order.
        index: The index file's content, or ``None`` for a single file.
    """

    folder: Path
    config: Mapping[str, Any]
    shards: Mapping[str, tuple[str, ...]]
    index: Mapping[str, Any] | None

    @classmethod
    def open(cls, folder: Path, *, model_type: str) -> "Checkpoint":
        """Read the headers of all shards; no tensor is read.

        Raises:
            ModelError: Another kind of model, a damaged or absent file, a tensor that is missing.
        """
        config = _read_json(folder / CONFIG, "this is not a model folder")
        if config.get("model_type") != model_type:
            raise ModelError(
                f"{folder}: model_type is {config.get('model_type')!r}, not {model_type!r}",
                hint=f"give a checkpoint of type {model_type}, such as allenai/OLMoE-1B-7B-0125",
            )
        index = _read_json(folder / INDEX) if (folder / INDEX).is_file() else None
        names = _shard_names(folder, index)
        shards = {name: _tensor_names(folder / name) for name in names}
        checkpoint = cls(folder, config, shards, index)
        checkpoint._check_index()
        checkpoint._check_complete()
        return checkpoint

    @property
    def where(self) -> dict[str, str]:
        """Tensor name -> the shard that holds it."""
        return {tensor: shard for shard, tensors in self.shards.items() for tensor in tensors}

    @cached_property
    def olmoe(self) -> OlmoeShape:
        """The shape of the model."""
        try:
            return OlmoeShape.model_validate(dict(self.config))
        except ValidationError as error:
            wrong = error.errors()[0]
            raise ModelError(
                f"{self.folder / CONFIG}: {wrong['loc'][0]} is {wrong['input']!r}: {wrong['msg']}",
                hint=AGAIN,
            ) from None

    def _check_index(self) -> None:
        if self.index is None:
            return
        for tensor, shard in self.index["weight_map"].items():
            if tensor not in self.shards[shard]:
                raise ModelError(
                    f"{self.folder / shard}: the index puts {tensor} here, but it is missing",
                    hint=AGAIN,
                )

    def _check_complete(self) -> None:
        present = self.where
        missing = [name for name in expected_tensors(self.olmoe) if name not in present]
        if missing:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise ModelError(
                f"{self.folder}: missing tensors: {', '.join(missing[:SHOWN])}{more}",
                hint=f"{AGAIN}, in the layout of one tensor per expert",
            )


def gate_name(layer: int) -> str:
    """Return the name of a layer's gate weight."""
    return f"model.layers.{layer}.mlp.gate.weight"


def gate_layers(layers: int) -> dict[str, int]:
    """Map the name of each gate weight to its layer."""
    return {gate_name(layer): layer for layer in range(layers)}


def expected_tensors(config: OlmoeShape) -> Iterator[str]:
    """Yield the names of all tensors of an OLMoE checkpoint in the per-expert layout."""
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield "lm_head.weight"
    kinds = ("weight", "bias") if config.attention_bias else ("weight",)
    for layer in range(config.num_hidden_layers):
        base = f"model.layers.{layer}"
        yield gate_name(layer)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{base}.{norm}.weight"
        for norm in ("q_norm", "k_norm"):
            yield f"{base}.self_attn.{norm}.weight"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield from (f"{base}.self_attn.{part}.{kind}" for kind in kinds)
        for expert in range(config.num_experts):
            for part in ("gate_proj", "up_proj", "down_proj"):
                yield f"{base}.mlp.experts.{expert}.{part}.weight"


@contextmanager
def open_shard(path: Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """Open a shard for reading tensors on the CPU, memory-mapped; ``np`` imports no torch.

    Raises:
        ModelError: The file is absent, cut short or not a safetensors file.
    """
    try:
        with safe_open(path, framework=framework) as shard:
            yield shard
    except FileNotFoundError:
        raise ModelError(f"{path}: this shard is missing", hint=AGAIN) from None
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged or cut short ({error})", hint=AGAIN) from None


def _tensor_names(path: Path) -> tuple[str, ...]:
    with open_shard(path, "np") as shard:
        return tuple(shard.keys())


def _shard_names(folder: Path, index: Mapping[str, Any] | None) -> list[str]:
    if index is not None:
        if not isinstance(index.get("weight_map"), dict):
            raise ModelError(f"{folder / INDEX}: it has no 'weight_map'", hint=AGAIN)
        return sorted(set(index["weight_map"].values()))
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: there are several shards, but {INDEX} is missing",
            hint=f"fetch {INDEX}, which says which shard holds which tensor",
        )
    if any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder}: the weights are pickled (.bin), which can run code when read",
            hint="load the model with transformers once and save_pretrained it as safetensors",
        )
    raise ModelError(f"{folder}: no weights (*.safetensors)", hint=AGAIN)


def _read_json(path: Path, otherwise: str = "") -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f" ({otherwise})" if otherwise else ""
        raise ModelError(f"{path}: {error.strerror}{reason}", hint="name a model folder") from None
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error})", hint=AGAIN) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object", hint=AGAIN)
    return content

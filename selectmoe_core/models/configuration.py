"""The description of a model folder, which is not trusted: ``config.json`` and the index."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.cost import ShapeNames
from selectmoe_core.errors import ModelError, shown
from selectmoe_core.paths import plain_name, read_regular

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SELECTOR = "selector.json"
"""File of a Select-MoE model: its converter, its sizes, and which tokens its router is read at."""
WEIGHTS = ".safetensors"
COPY_AGAIN = "copy the file again from the model's source"
LLAMA_LIKE = frozenset(
    (
        *("llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "olmo", "olmo2"),
        *("olmo3", "smollm3", "cohere", "granite", "helium", "arcee", "seed_oss"),
    )
)
"""Model types whose layers call their projections as Llama does."""
LARGEST: Mapping[str, int] = {
    "num_hidden_layers": 10_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "head_dim": 1_000_000,
    "hidden_size": 10_000_000,
    "intermediate_size": 100_000_000,
    "moe_intermediate_size": 100_000_000,
    "vocab_size": 100_000_000,
    "num_experts": 100_000,
    "num_local_experts": 100_000,
    "n_routed_experts": 100_000,
    "num_experts_per_tok": 100_000,
    "num_trash_experts": 100_000,
}
"""Fields of a configuration that sizes depend on, and a limit far above every real model."""


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that describes a model.

    Raises:
        ModelError: no regular file, not JSON, or another kind of value.
    """
    content = read_regular(path, error=ModelError, hint=COPY_AGAIN)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}", hint=COPY_AGAIN) from None
    if not isinstance(value, dict):
        found = type(value).__name__
        raise ModelError(f"{path}: expected a JSON object, got {found}", hint=COPY_AGAIN)
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model folder, its sizes checked.

    Raises:
        ModelError: see ``read_object``; a size is not a whole number, or far too large.
    """
    path = folder / CONFIG
    if not path.exists():
        raise ModelError(f"{path} is missing (this is not a model folder)", hint="name a model")
    config = read_object(path)
    for name, largest in LARGEST.items():
        value = config.get(name)
        if value is None:  # the code that needs a value reports if it is missing
            continue
        if type(value) is not int or not 0 <= value <= largest:
            raise ModelError(
                f"{path}: {name} is {shown(value)}, not a whole number from 0 to {largest:,}",
                hint=COPY_AGAIN,
            )
    return config


def read_selector(folder: Path, config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Read ``selector.json`` of a model; empty if there is none.

    The model's configuration decides; this file repeats it for readers and must agree.

    Args:
        folder: the model's folder.
        config: the model's configuration.
        file: the file of that configuration, for the message.

    Raises:
        ModelError: the two contradict each other; the message names both.
    """
    path = folder / SELECTOR
    if not path.exists():
        return {}
    selector = read_object(path)
    names = ShapeNames()
    for key, size in (("experts", "experts"), ("trash_cans", "trash"), ("top_k", "top_k")):
        stated, true = selector.get(key), names.find(config, size)
        if stated is not None and true is not None and (type(stated) is not int or stated != true):
            raise ModelError(
                f"{path} says {key} is {shown(stated)}, but {file} says {true}",
                hint=f"{CONFIG} decides how the model computes; convert again, or correct "
                f"{SELECTOR}",
            )
    return selector


def read_index(folder: Path) -> dict[str, Any] | None:
    """Read the index of a folder of several shards; ``None`` if there is none.

    Raises:
        ModelError: an entry that does not name a shard of this folder by its plain file name.
    """
    path = folder / INDEX
    if not path.exists():
        return None
    index = read_object(path)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{path}: it has no 'weight_map'", hint=COPY_AGAIN)
    for tensor, shard in places.items():
        where = f"{path}: the entry of {shown(tensor)}"
        hint = "an index must name shards of its own folder; get the model from a source you trust"
        if not plain_name(shard, where=where, error=ModelError, hint=hint).endswith(WEIGHTS):
            raise ModelError(f"{where}: {shown(shard)} is not a *{WEIGHTS} file", hint=hint)
    _check_totals(index.get("metadata"), path)
    return index


def _check_totals(metadata: object, path: Path) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise ModelError(f"{path}: its metadata is {shown(metadata)}", hint=COPY_AGAIN)
    for name in ("total_size", "total_parameters"):
        value = metadata.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{path}: {name} is {shown(value)}, not a number", hint=COPY_AGAIN)

"""Models of random weights: in memory, and as checkpoints in the layout that the hub has."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Names = list[tuple[str, tuple[int, ...]]]
INDEX = "model.safetensors.index.json"


def random_model(kind: Callable[[Any], Any], config: Any, device: str, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Return a model with random weights, made on the device itself."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return kind(config)
    finally:
        torch.set_default_dtype(before)


def make_checkpoint(config: dict[str, Any], folder: Path, device: str) -> None:
    """Write a checkpoint where there is none yet."""
    if not (folder / INDEX).is_file():
        write_checkpoint(config, folder, device)


def write_checkpoint(
    config: dict[str, Any], folder: Path, device: str, *, seed: int = 0, threads: int = 1
) -> int:
    """Write bf16 weights, normal of standard deviation 0.02, norms 1, a shard some layers.

    Args:
        config: what ``config.json`` shall hold.
        folder: where to.
        device: where the weights are drawn.
        seed: of the first shard, the second's is one more.
        threads: shards written at a time; host memory holds so many.

    Returns:
        The weights' bytes on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(shard_names(config))

    def write(number: int) -> dict[str, str]:
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        generator = torch.Generator(device).manual_seed(seed + number)
        tensors = {}
        for name, shape in shards[number]:
            tensor = torch.empty(shape, dtype=torch.bfloat16, device=device)
            if "norm" in name:
                tensor.fill_(1)
            else:
                tensor.normal_(0, 0.02, generator=generator)
            tensors[name] = tensor.cpu()
        save_file(tensors, folder / file, metadata={"format": "pt"})
        return dict.fromkeys(tensors, file)

    weight_map: dict[str, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for files in pool.map(write, range(len(shards))):
            weight_map |= files
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return size


def shard_names(config: dict[str, Any]) -> Iterator[Names]:
    """Yield names and shapes of each of three shards: embeddings, groups of layers, the head."""
    hidden, wide, vocabulary = (
        config[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    experts, layers = config.get("num_experts", 0), config["num_hidden_layers"]
    gates = experts + config.get("num_trash_experts", 0)
    group = max(1, -(-layers // 3))
    for first in range(0, layers, group):
        names: Names = []
        if first == 0:
            names.append(("model.embed_tokens.weight", (vocabulary, hidden)))
        for layer in range(first, min(first + group, layers)):
            at = f"model.layers.{layer}"
            names += [(f"{at}.self_attn.{x}_proj.weight", (hidden, hidden)) for x in "qkvo"]
            names += [
                (f"{at}.{x}_layernorm.weight", (hidden,)) for x in ("input", "post_attention")
            ]
            blocks = [f"{at}.mlp"]
            if experts:
                names += [(f"{at}.self_attn.{x}_norm.weight", (hidden,)) for x in "qk"]
                names.append((f"{at}.mlp.gate.weight", (gates, hidden)))
                blocks = [f"{at}.mlp.experts.{expert}" for expert in range(experts)]
            for block in blocks:
                names += [(f"{block}.{x}_proj.weight", (wide, hidden)) for x in ("gate", "up")]
                names.append((f"{block}.down_proj.weight", (hidden, wide)))
        if first + group >= layers:
            names += [("model.norm.weight", (hidden,)), ("lm_head.weight", (vocabulary, hidden))]
        yield names

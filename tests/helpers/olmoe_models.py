"""Tiny random OLMoE models and checkpoints for the tests of selectmoe_olmoe."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

from selectmoe_olmoe.model.modeling import SelectMoeConfig, SelectMoeForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "initializer_range": 0.2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
"""64 experts, top 8 and large weights: a routing mistake shows in the logits."""


def olmoe(seed: int = 0, **changes: Any) -> OlmoeForCausalLM:
    torch.manual_seed(seed)
    return OlmoeForCausalLM(OlmoeConfig(**TINY | changes)).eval()


def select_moe(seed: int = 0, trash_std: float = 0.2, **changes: Any) -> SelectMoeForCausalLM:
    torch.manual_seed(seed)
    settings = TINY | {"trash_can_init_std": trash_std} | changes
    return SelectMoeForCausalLM(SelectMoeConfig(**settings)).eval()


def grown(source: OlmoeForCausalLM, trash: int = 8, std: float = 0.2) -> SelectMoeForCausalLM:
    """The Select-MoE model with the source's weights and random trash rows."""
    config = source.config.to_dict() | {"num_trash_experts": trash}
    config.pop("model_type")
    target = SelectMoeForCausalLM(SelectMoeConfig(**config)).eval()
    state = source.state_dict()
    for name, weight in state.items():
        if name.endswith("mlp.gate.weight"):
            state[name] = torch.cat([weight, torch.randn(trash, weight.shape[1]) * std])
    target.load_state_dict(state)
    return target.to(source.dtype)


def save(model: OlmoeForCausalLM, folder: Path, shard_size: str | None = None) -> Path:
    model.save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    (folder / "tokenizer_config.json").write_text('{"note": "copied as it is"}')
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def rewrite_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def byte_tokenizer(folder: Path) -> None:
    """Save a tokenizer of single bytes (ids 2 to 257) with an end-of-sequence (1) into a folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1} | {byte: 2 + i for i, byte in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.save_pretrained(folder)

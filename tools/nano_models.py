"""The nano models: how they are built, what they are trained on, how they are written."""

from pathlib import Path
from types import MethodType
from typing import Any

import torch
from nano_corpus import END, PAD
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedTokenizerFast,
)

from selectmoe_core.models import give_usual_permissions

Model = Any
"""A transformers model: the library has no types that a checker could use."""


def common(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what both configurations share."""
    end = tokenizer.token_to_id(END)
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "num_hidden_layers": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": tokenizer.token_to_id(PAD),
    }


def build_llama(tokenizer: Tokenizer) -> Model:
    """Return the Llama: hidden 192, 6 heads."""
    config = LlamaConfig(
        hidden_size=192, intermediate_size=512, num_attention_heads=6, num_key_value_heads=6,
        **common(tokenizer),
    )  # fmt: skip
    return LlamaForCausalLM(config)


def build_olmoe(tokenizer: Tokenizer) -> Model:
    """Return the OLMoE: hidden 128, 16 experts of 64, top 4, experts computed densely."""
    config = OlmoeConfig(
        hidden_size=128, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4,
        num_experts=16, num_experts_per_tok=4, norm_topk_prob=False, **common(tokenizer),
    )  # fmt: skip
    model = OlmoeForCausalLM(config)
    model.config.use_cache = False
    ids = torch.randint(0, config.vocab_size, (2, 12))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        for layer in model.model.layers:
            layer.mlp.experts.forward = MethodType(dense_experts, layer.mlp.experts)
        found = model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    return model


def dense_experts(
    self: Model, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Compute all experts in two matrix products and weight the unchosen ones by zero.

    ``hidden`` [tokens, H], ``index`` and ``weights`` [tokens, k]. At this size two large products
    are faster than many small ones, and the weights stay those of the standard model.
    """
    experts, double, width = self.gate_up_proj.shape
    gates = weights.new_zeros(len(hidden), experts).scatter(1, index, weights)
    both = nn.functional.linear(hidden, self.gate_up_proj.reshape(experts * double, width))
    gate, up = both.view(len(hidden), experts, double).chunk(2, dim=-1)
    inner = nn.functional.silu(gate) * up * gates[..., None].to(gate.dtype)
    down = self.down_proj.permute(1, 0, 2).reshape(width, -1)
    return nn.functional.linear(inner.flatten(1), down).to(hidden.dtype)


def balance_loss(
    router_logits: tuple[torch.Tensor, ...], real: torch.Tensor, k: int
) -> torch.Tensor:
    """Return the Switch load-balancing loss, averaged over layers, real tokens only."""
    total = router_logits[0].new_zeros((), dtype=torch.float32)
    mask = real.reshape(-1, 1).float()
    for logits in router_logits:
        chances = logits.float().softmax(-1)
        chosen = torch.zeros_like(chances).scatter(1, chances.topk(k).indices, 1.0)
        share = (chosen * mask).sum(0) / (mask.sum() * k)
        mean = (chances * mask).sum(0) / mask.sum()
        total = total + len(share) * (share * mean).sum()
    return total / len(router_logits)


def losses(
    model: Model, ids: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted cross-entropy and the balance loss (zero without a router)."""
    moe = isinstance(model, OlmoeForCausalLM)
    extra = {"output_router_logits": True} if moe else {}
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
        result = model.model(input_ids=ids, use_cache=False, **extra)
        logits = model.lm_head(result.last_hidden_state[:, :-1])
    each = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    cross = (each * weights.flatten()).sum() / weights.sum()
    if not moe:
        return cross, torch.zeros_like(cross)
    real = ids != model.config.pad_token_id
    return cross, balance_loss(result.router_logits, real, model.config.num_experts_per_tok)


def save(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, weights (bf16) and tokenizer with ordinary file modes."""
    dtype = next(model.parameters()).dtype
    patched = [m for m in model.modules() if "forward" in m.__dict__]
    model.config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(dtype)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PAD,
        model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    wrapped.save_pretrained(folder)
    give_usual_permissions(folder.iterdir())
    assert all("forward" in m.__dict__ for m in patched)

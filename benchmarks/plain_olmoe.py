"""The baseline: transformers' own OLMoE on the weights of a Select-MoE, without trash cans."""

from typing import Any

import torch
from transformers import OlmoeConfig


def plain_olmoe(kind: Any, model: Any, shape: dict[str, Any], experts: str) -> Any:  # noqa: ANN401
    """Return an OLMoE that shares all weights but the gates' with a Select-MoE.

    Args:
        kind: a class of transformers: ``OlmoeModel`` or ``OlmoeForCausalLM``.
        model: the Select-MoE of the same kind.
        shape: its sizes.
        experts: the experts implementation, as transformers names it.
    """
    config = OlmoeConfig(**shape, pad_token_id=0, eos_token_id=None)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    weights = dict(model.state_dict())
    for name, tensor in weights.items():
        if name.endswith("mlp.gate.weight"):
            weights[name] = tensor[: config.num_experts].to(model.dtype).clone()
    with torch.device("meta"):
        plain = kind(config)
    plain.load_state_dict(weights, assign=True)
    decoder = plain.base_model  # its rotary frequencies are no part of the weights
    decoder.rotary_emb = type(decoder.rotary_emb)(config).to(model.device)
    plain.set_experts_implementation(experts)
    return plain

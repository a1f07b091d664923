"""Shapes of the models that are measured, as transformers' configurations name their sizes."""

from typing import Any

OLMOE: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
}
"""OLMoE-1B-7B."""
LLAMA: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
"""Llama-2-7B."""
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 2048,
}
"""What a model of a few thousand weights, for the CPU, has instead."""
TINY_EXPERTS: dict[str, Any] = {"num_experts": 16, "num_experts_per_tok": 4}
OLMOE_CHECKPOINT = OLMOE | {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "norm_topk_prob": False,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
LLAMA_CHECKPOINT = LLAMA | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}

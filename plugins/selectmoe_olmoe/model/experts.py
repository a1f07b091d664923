"""The sparse block: regular experts compute; slots that go to a trash can cost nothing."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from selectmoe_olmoe.model.router import TrashcanRouter


class SelectMoeSparseMoeBlock(nn.Module):
    """A block with an expanded gate; it reuses the experts instead of allocating them again."""

    def __init__(self, gate: TrashcanRouter, experts: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.gate = gate
        self.experts: Any = experts

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map ``[batch, length, hidden]`` to the same shape: the weighted sum of the experts."""
        flat = hidden_states.view(-1, hidden_states.shape[-1])
        _, weights, index = self.gate(flat)
        # Not the config's own default: transformers stores the resolved name under this key.
        if self.experts.config._experts_implementation in {None, "eager"}:  # noqa: SLF001
            mixed = eager_experts(self.experts, flat, index, weights)
        else:
            mixed = flattened_experts(self.experts, flat, index, weights)
        return mixed.view(hidden_states.shape)


def flattened_experts(experts: Any, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:  # noqa: ANN401
    """Run transformers' grouped kernels only over the regular (token, slot) pairs.

    Every pair becomes a token with one slot, so only the public call of the experts is used.
    The pairs return to their slots before the sum, which is therefore the sum that the source model
    takes: equal bit for bit when no slot is trash, and free of atomic additions in both directions.

    Args:
        experts: The layer's experts, called as ``experts(hidden, index, weights)``.
        hidden: ``[tokens, hidden]``.
        index: ``[tokens, top_k]``; numbers from ``experts.num_experts`` up are trash cans.
        weights: ``[tokens, top_k]``.

    Returns:
        ``[tokens, hidden]``; zero where all slots of a token are trash.
    """
    tokens, top_k = index.shape
    token, slot = (index < experts.num_experts).nonzero(as_tuple=True)
    spread = hidden.unsqueeze(1).expand(-1, top_k, -1)
    pairs = experts(spread[token, slot], index[token, slot, None], weights[token, slot, None])
    slots = pairs.new_zeros(tokens * top_k, hidden.shape[-1])
    slots = slots.index_copy(0, token * top_k + slot, pairs)
    return slots.view(tokens, top_k, -1).sum(dim=1)


def eager_experts(experts: Any, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:  # noqa: ANN401
    """Loop over the experts in use, in the source model's order of operations (equal bit for bit).

    The stacked weights are split once: indexing them expert by expert would write a
    zero gradient of the whole stack for each expert in the backward pass.
    Shapes as in ``flattened_experts``.
    """
    mixed = torch.zeros_like(hidden)
    gate_up, down = experts.gate_up_proj.unbind(0), experts.down_proj.unbind(0)
    for expert in index[index < experts.num_experts].unique().tolist():
        slot, token = (index.t() == expert).nonzero(as_tuple=True)
        gate, up = functional.linear(hidden[token], gate_up[expert]).chunk(2, dim=-1)
        out = (
            functional.linear(experts.act_fn(gate) * up, down[expert]) * weights[token, slot, None]
        )
        mixed = mixed.index_add(0, token, out.to(mixed.dtype))
    return mixed

"""The Select-MoE router: top-k over regular experts and trash cans together.

Trash cans are extra rows of the gate. They have no weights and output zero, so whatever
probability a token spends on them is withheld from the experts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter

from selectmoe_olmoe.family import OLMOE, MoeFamily


def select(probs: Tensor, num_experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Take the ``top_k`` most probable outputs; equal probabilities go to the regular expert.

    ``torch.topk`` breaks ties differently at different widths, and bf16 logits tie often. So the
    regular experts are ranked by themselves, exactly as the source model ranks them, and the trash
    cans are merged in by a stable sort. Without any mass on the trash the result is the source
    model's own.

    Args:
        probs: ``[tokens, num_experts + trash]``, regular experts first.
        num_experts: Number of regular experts.
        top_k: Slots per token.

    Returns:
        Probabilities and output numbers, both ``[tokens, top_k]``, most probable first.
    """
    regular, index = torch.topk(probs[:, :num_experts].contiguous(), top_k, dim=-1)
    trash = torch.arange(num_experts, probs.shape[-1], device=probs.device)
    values = torch.cat([regular, probs[:, num_experts:]], dim=-1)
    outputs = torch.cat([index, trash.expand(probs.shape[0], -1)], dim=-1)
    order = torch.sort(values, dim=-1, descending=True, stable=True).indices[:, :top_k]
    return values.gather(-1, order), outputs.gather(-1, order)


def softmax(logits: Tensor, num_experts: int, *, trash: bool = True) -> Tensor:
    """Router probabilities in fp32, ``[tokens, num_experts + trash]``.

    With ``trash=False`` the regular experts share all of the mass and the trash columns are zero:
    taken over the first ``num_experts`` columns alone, so that it is the source model's softmax bit
    for bit.
    """
    if trash:
        return functional.softmax(logits, dim=-1, dtype=torch.float32)
    regular = functional.softmax(logits[:, :num_experts].contiguous(), dim=-1, dtype=torch.float32)
    return functional.pad(regular, (0, logits.shape[-1] - num_experts))


class TrashcanRouter(nn.Module):
    """What every family's router adds to its own: weight ``[experts + trash, hidden]``.

    A family's router inherits from this first and from transformers' router second, and names its
    ``family``. The weight may be kept in fp32 while the model computes in bf16 (training does so,
    because a bf16 weight loses small updates); the product is taken in the dtype of the hidden
    states.
    """

    family: MoeFamily
    num_experts: int
    top_k: int
    hidden_dim: int

    def __init__(self, config: Any) -> None:  # noqa: ANN401
        super().__init__(config)
        self.num_trash_experts: int = config.num_trash_experts
        self.norm_topk_prob = self.family.normalizes(config)
        self.weight = nn.Parameter(
            torch.zeros(self.num_experts + self.num_trash_experts, self.hidden_dim)
        )
        self.trash_enabled = True

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Route every token.

        Args:
            hidden_states: ``[..., hidden]``.

        Returns:
            Logits ``[tokens, num_experts + trash]`` in the dtype of the hidden states, the weights
            of the chosen slots ``[tokens, top_k]`` and their output numbers ``[tokens, top_k]``.
        """
        hidden_states = hidden_states.reshape(-1, self.hidden_dim)
        weight = self.weight.to(hidden_states.dtype)
        # Two products: a GEMM of another width may round otherwise (seen on CUDA in fp32).
        regular = functional.linear(hidden_states, weight[: self.num_experts])
        trash = functional.linear(hidden_states, weight[self.num_experts :])
        logits = torch.cat([regular, trash], dim=-1)
        probs = softmax(logits, self.num_experts, trash=self.trash_enabled)
        scores, outputs = select(probs, self.num_experts, self.top_k)
        if self.norm_topk_prob:
            scores = scores / scores.sum(dim=-1, keepdim=True)
        return logits, scores.to(logits.dtype), outputs


class SelectMoeTopKRouter(TrashcanRouter, OlmoeTopKRouter):
    """OLMoE's router with trash cans."""

    family = OLMOE

"""The auxiliary losses of Select-MoE and the figures that describe its routing.

All of them are functions of the recorded router logits: one ``[tokens, experts + trash]`` tensor a
layer, where tokens is batch x length in row-major order, padding included. ``mask`` is
``[tokens]``, true for real tokens; padding is never counted.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from selectmoe_olmoe.model.router import select

BalanceOver = Literal["all", "regular", "grouped"]


def log_ratio(logits: Tensor, num_experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Return ``log r`` and ``log(1 - r)``, each ``[tokens]`` in fp32.

    ``r`` is the probability of the ``top_k`` most likely regular experts in the softmax over all
    outputs. Both logarithms come from log-sum-exp over logits, so neither loses digits at the ends
    and the gradient never vanishes by clamping.

    Args:
        logits: ``[tokens, num_experts + trash]`` with at least one output besides the top k.
        num_experts: Number of regular experts.
        top_k: Number of experts that count.
    """
    scores = logits.float()
    top, index = torch.topk(scores[:, :num_experts], top_k, dim=-1)
    others = scores.scatter(-1, index, float("-inf"))
    total = scores.logsumexp(dim=-1)
    return top.logsumexp(dim=-1) - total, others.logsumexp(dim=-1) - total


def constraint_per_token(
    logits: Sequence[Tensor], num_experts: int, top_k: int, alpha: float, beta: float
) -> Tensor:
    """Mean over layers of ``-((alpha - 1) log r + (beta - 1) log(1 - r))``, ``[tokens]``.

    This is the negative log density of Beta(alpha, beta) without its constant. With alpha = 1 and
    beta = 2 it is smallest at r = 0: a tax on experts, not a reward.
    """
    terms = []
    for layer in logits:
        log_r, log_rest = log_ratio(layer, num_experts, top_k)
        terms.append(-((alpha - 1) * log_r + (beta - 1) * log_rest))
    return torch.stack(terms).mean(dim=0)


def balance_loss(
    logits: Sequence[Tensor],
    mask: Tensor,
    num_experts: int,
    top_k: int,
    over: BalanceOver = "all",
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Load-balancing loss of the Switch Transformer as used by OLMoE; a scalar in fp32.

    ``n * sum_e f_e P_e``, with ``f_e`` the mean number of slots of a token that go to output ``e``,
    ``P_e`` its mean probability, both over layers and real tokens, and ``n`` the number of outputs.
    ``over="regular"`` leaves out the trash columns, as if the model had none; ``over="grouped"``
    gives each of them the mean load of all (AdaMoE, Zeng et al. 2024). If processes share a batch,
    ``gather`` sums a tensor over them: each returns its part of the whole batch's loss.
    """
    width = num_experts if over == "regular" else logits[0].shape[-1]
    keep = mask.to(torch.float32)
    slots = probs = torch.zeros(width, device=keep.device)
    for layer in logits:
        layer_probs = layer[:, :width].float().softmax(dim=-1)
        _, index = select(layer_probs, num_experts, top_k)
        slots = slots + torch.zeros_like(slots).index_add(
            0, index.reshape(-1), keep.repeat_interleave(top_k)
        )
        probs = probs + keep @ layer_probs
    total = keep.sum() * len(logits)
    if gather is not None:
        slots, total = gather(slots), gather(total)
    if over == "grouped":
        slots = trash_as_one(slots, num_experts)
    total = total.clamp(min=1)
    return width * ((slots / total) * (probs / total)).sum()


def trash_as_one(slots: Tensor, num_experts: int) -> Tensor:
    """Return how many slots each output got, the trash cans each the mean of all: ``[.., width]``.

    Which of the trash cans a token uses makes no difference, so they need no balance among them.
    """
    regular, trash = slots[..., :num_experts], slots[..., num_experts:]
    return torch.cat([regular, trash.mean(dim=-1, keepdim=True).expand_as(trash)], dim=-1)


@torch.no_grad()
def trash_share(logits: Sequence[Tensor], mask: Tensor, num_experts: int, top_k: int) -> Tensor:
    """Share of real tokens' slots that go to a trash can, ``[layers]`` in fp32."""
    shares = []
    for layer in logits:
        _, index = select(layer.float().softmax(dim=-1), num_experts, top_k)
        shares.append((index[mask.bool()] >= num_experts).float().sum())
    return torch.stack(shares) / (mask.sum() * top_k).clamp(min=1)

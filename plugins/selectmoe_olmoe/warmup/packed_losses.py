"""The losses of ``model.losses`` and ``contrastive_losses`` for packed passes: all layers at once.

``logits`` is fp32 ``[layers, N, experts + trash]``, ``index`` ``[layers, N, top_k]`` the output of
each slot, ``micro`` fp32 ``[B, N]`` as in ``packed_rows``. Joining micro-batches into a pass
changes nothing: a term that is not a sum over tokens is computed for each micro-batch separately.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from selectmoe_olmoe.model.losses import BalanceOver, log_ratio, trash_as_one


def constraint_sum(
    logits: Tensor, micro: Tensor, num_experts: int, top_k: int, alpha: float, beta: float
) -> Tensor:
    """Return the sum over tokens of ``losses.constraint_per_token``; a scalar."""
    ratios = log_ratio(logits.flatten(0, 1), num_experts, top_k)
    log_r, log_rest = (part.view(logits.shape[:2]) for part in ratios)
    taxes = -((alpha - 1) * log_r + (beta - 1) * log_rest)
    return (taxes.mean(dim=0) * micro.sum(dim=0)).sum()


def balance_sum(
    logits: Tensor,
    index: Tensor,
    micro: Tensor,
    num_experts: int,
    over: BalanceOver,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the sum over micro-batches of their tokens times ``losses.balance_loss``; a scalar.

    If processes share micro-batches, ``gather`` sums a tensor over them.
    """
    layers, _, top_k = index.shape
    width = num_experts if over == "regular" else logits.shape[-1]
    probs = logits[..., :width].softmax(dim=-1)
    if over == "regular":
        index = probs.detach().topk(top_k, dim=-1).indices
    with torch.no_grad():
        chosen = torch.zeros_like(probs).scatter_(-1, index.long(), 1.0)
        tokens = micro.sum(dim=1)
        slots = torch.matmul(micro, chosen).sum(dim=0)
        if gather is not None:
            tokens, slots = gather(tokens), gather(slots)
        if over == "grouped":
            slots = trash_as_one(slots, num_experts)
    masses = torch.matmul(micro, probs).sum(dim=0)
    return width * ((slots * masses).sum(dim=-1) / (tokens.clamp(min=1) * layers**2)).sum()


def trash_sum(index: Tensor, micro: Tensor, num_experts: int) -> Tensor:
    """Return the sum over tokens of the share of slots that go to trash cans, ``[layers]``."""
    return (index >= num_experts).float().mean(dim=-1) @ micro.sum(dim=0)


def trash_logits(
    logits: Tensor, tokens: Tensor, rows: Tensor, count: int, num_experts: int
) -> Tensor:
    """Return ``contrastive_losses.trash_logits`` of packed rows, fp32 ``[layers, count]``.

    Args:
        logits: the router logits.
        tokens: int64 ``[A]``: the answers' tokens that count.
        rows: int64 ``[A]``: the row of each, from 0 to ``count - 1``, each with a token.
        count: number of rows.
        num_experts: number of regular experts.
    """
    picked = logits.index_select(1, tokens)
    total = picked.logsumexp(dim=-1)
    trash = picked[..., num_experts:].logsumexp(dim=-1) - total
    regular = picked[..., :num_experts].logsumexp(dim=-1) - total
    return _over_rows(trash, rows, count) - _over_rows(regular, rows, count)


def _over_rows(logs: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the log of the sum over each row's tokens of ``exp(logs)``, ``[layers, count]``."""
    empty = logs.new_full((len(logs), count), float("-inf"))
    at = rows.expand_as(logs)
    most = empty.scatter_reduce(1, at, logs.detach(), "amax")
    masses = torch.zeros_like(empty).scatter_add(1, at, (logs - most.gather(1, at)).exp())
    return masses.log() + most

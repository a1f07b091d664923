"""From hidden states to a vector for each example: pure functions of tensors."""

import torch
from torch import Tensor


def packed_weights(pooling: str, positions: Tensor, starts: Tensor) -> Tensor:
    """Return the weight of every token of packed examples, fp32 ``[tokens]``.

    ``position`` gives a token its place in the example, from 1. The mean with these weights is RDS+
    (Ivison et al. 2025, https://arxiv.org/abs/2503.01807): token i of L has i / (1 + 2 + ... + L).

    Args:
        pooling: ``position``, ``mean`` or ``last``.
        positions: each token's place in its example, from 0, ``[tokens]``.
        starts: first token of each example and, last, ``tokens``: ``[examples + 1]``.
    """
    if pooling == "position":
        return positions.float() + 1
    if pooling == "mean":
        return torch.ones(len(positions), device=positions.device)
    return torch.zeros(len(positions), device=positions.device).index_fill_(
        0, starts[1:].long() - 1, 1.0
    )


def padded_weights(pooling: str, mask: Tensor) -> Tensor:
    """Return the same for padded examples, fp32 ``[examples, length]``; padding has zero.

    Args:
        pooling: ``position``, ``mean`` or ``last``.
        mask: bool ``[examples, length]``: true on the tokens, which come before the padding.
    """
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    if pooling == "position":
        return (places * mask).float()
    return mask.float() if pooling == "mean" else (places == mask.sum(dim=1)[:, None]).float()


def packed_mean(values: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """Return the weighted mean of each packed example, fp32 ``[examples, width]``.

    The order of the sums does not depend on chance, also on a GPU. An example whose weights are all
    zero gets zeros.

    Args:
        values: ``[tokens, width]``, any floating dtype.
        weights: fp32 ``[tokens]``, not negative.
        starts: first token of each example and, last, ``tokens``: ``[examples + 1]``.
    """
    offsets = starts.long()
    weighted = values.float() * weights[:, None]
    totals = torch.segment_reduce(weighted, "sum", offsets=offsets, axis=0)
    mass = torch.segment_reduce(weights, "sum", offsets=offsets, axis=0)
    return totals / mass.clamp_min(torch.finfo(torch.float32).tiny)[:, None]


def padded_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of each padded example, fp32 ``[examples, width]``.

    Args:
        values: ``[examples, length, width]``; what padding holds must be finite.
        weights: fp32 ``[examples, length]``, zero on padding.
    """
    totals = torch.einsum("el,elw->ew", weights, values.float())
    mass = weights.sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return totals / mass[:, None]

"""The contrast: answers of corrupted copies go to the trash, those of clean examples away from it.

What is pulled is the logit of the router scorer's ``trash_mass``: the mean probability of the trash
cans over the tokens that count, of each layer or summed over layers. Pure functions of tensors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def trash_logits(logits: Sequence[Tensor], answers: Tensor, num_experts: int) -> Tensor:
    """Return ``log(m / (1 - m))`` of each row's mean trash mass ``m``, fp32 ``[layers, rows]``.

    Both masses come from log-sum-exp over logits and tokens, so neither end loses digits and no
    gradient is clamped. The number of tokens cancels out.

    Args:
        logits: a layer's router logits each, ``[rows * length, experts + trash]``.
        answers: bool ``[rows, length]``: the answers' tokens that count, at least one in a row.
        num_experts: number of regular experts.
    """
    found = []
    for layer in logits:
        scores = layer.float()
        total = scores.logsumexp(dim=-1)
        trash = scores[:, num_experts:].logsumexp(dim=-1) - total
        regular = scores[:, :num_experts].logsumexp(dim=-1) - total
        found.append(_over_tokens(trash, answers) - _over_tokens(regular, answers))
    return torch.stack(found)


def _over_tokens(logs: Tensor, answers: Tensor) -> Tensor:
    return logs.view(answers.shape).masked_fill(~answers, float("-inf")).logsumexp(dim=-1)


def joint(logits: Tensor, layers: Tensor, alike: float) -> Tensor:
    """Return one logit for all layers, ``[1, rows]``: their weighted sum, above ``alike``.

    It is 0 where the router has no preferences. Damage need not be visible in every
    layer: only the sum is asked for, and the layers that read best can carry it.

    Args:
        logits: ``[layers, rows]``, from ``trash_logits``.
        layers: weights of the layers ``[layers]``, which sum to 1.
        alike: the logit of a router to which all outputs are alike.
    """
    return (len(layers) * (layers @ (logits - alike)))[None]


def cross_entropy(clean: Tensor, corrupted: Tensor, layers: Tensor) -> Tensor:
    """Return the sum over pairs of the mean binary cross-entropy of both; a scalar.

    A corrupted copy's mass should be 1, a clean example's 0.

    Args:
        clean: ``[layers, pairs]``, from ``trash_logits``.
        corrupted: the same of their corrupted copies.
        layers: weights of the layers ``[layers]``, which sum to 1.
    """
    both = (functional.softplus(clean) + functional.softplus(-corrupted)) / 2
    return (layers @ both).sum()


def margin(clean: Tensor, corrupted: Tensor, layers: Tensor) -> Tensor:
    """Return the sum over pairs of ``softplus(clean - corrupted)``: small where the copy has more.

    The logistic ranking loss of RankNet (Burges et al. 2005). Arguments as for ``cross_entropy``.
    """
    return (layers @ functional.softplus(clean - corrupted)).sum()


@torch.no_grad()
def ordered(clean: Tensor, corrupted: Tensor) -> Tensor:
    """Return which copies have more trash mass over all layers than their originals, ``[pairs]``.

    This is how the router scorer ranks them, all layers alike; a tie is one half.
    """
    ahead = corrupted.sigmoid().mean(dim=0) - clean.sigmoid().mean(dim=0)
    return (ahead.sign() + 1) / 2


def layer_weights(weights: Sequence[float] | None, layers: int) -> Tensor:
    """Return weights that sum to 1, fp32 ``[layers]``: as given, or all equal.

    Raises:
        ValueError: their number is not ``layers``, or none is above zero.
    """
    if weights is None:
        return torch.full((layers,), 1 / layers)
    if len(weights) != layers or not sum(weights) > 0:
        raise ValueError(
            f"layer_weights has {len(weights)} weights, but the model has {layers} layers"
        )
    given = torch.tensor(weights, dtype=torch.float32)
    return given / given.sum()

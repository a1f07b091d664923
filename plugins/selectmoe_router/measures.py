"""What a router's logits say about tokens: pure functions from tensors to tensors.

Columns are outputs of the router, the ``experts`` regular ones first, then the trash cans. Each
statistic grows with the use that a token makes of the regular experts.
"""

import torch
from torch import Tensor


def probabilities(logits: Tensor) -> Tensor:
    """Return the router's softmax over regular experts and trash cans together, in fp32.

    Args:
        logits: ``[tokens, experts + trash]``, any floating dtype.

    Returns:
        fp32 of the same shape.
    """
    return torch.softmax(logits, dim=-1, dtype=torch.float32)


def trash_mass(probs: Tensor, experts: int) -> Tensor:
    """Return 1 - probability mass on trash cans: ``[tokens, experts + trash]`` to ``[tokens]``."""
    return 1 - probs[:, experts:].sum(dim=-1)


def trash_slots(probs: Tensor, experts: int, top_k: int) -> Tensor:
    """Return 1 - share of the ``top_k`` slots that fell to trash cans.

    Of equal probabilities the regular expert's comes first, as Select-MoE's router has it.

    Args:
        probs: ``[tokens, experts + trash]``.
        experts: how many columns are regular experts.
        top_k: slots of a token, at most ``experts``.

    Returns:
        fp32 ``[tokens]``, multiples of ``1 / top_k``.
    """
    regular = probs[:, :experts].topk(top_k, dim=-1).values
    both = torch.cat([regular, probs[:, experts:]], dim=-1)
    order = both.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    return (order < top_k).sum(dim=-1, dtype=torch.float32) / top_k


def topk_ratio(probs: Tensor, experts: int, top_k: int) -> Tensor:
    """Return ``r``, the sum of the ``top_k`` largest regular-expert probabilities.

    The softmax is the one over all outputs, so the mass on trash cans lowers it: ``[tokens, experts
    + trash]`` to ``[tokens]``.
    """
    return probs[:, :experts].topk(top_k, dim=-1).values.sum(dim=-1)


def logit_sum(logits: Tensor, experts: int) -> Tensor:
    """Return the sum of the regular experts' logits in fp32, ``[tokens]``.

    The score of the experiment that the method comes from. Not invariant to a constant added to all
    logits of a token, which routing does not see.
    """
    return logits[:, :experts].sum(dim=-1, dtype=torch.float32)


def statistics(logits: Tensor, probs: Tensor, experts: int, top_k: int) -> dict[str, Tensor]:
    """Return every statistic that the router has, each ``[tokens]``.

    Those of the trash cans are left out where there are none.

    Args:
        logits: ``[tokens, experts + trash]``.
        probs: ``probabilities(logits)``.
        experts: how many columns are regular experts.
        top_k: slots of a token.
    """
    of_experts = {
        "topk_ratio": topk_ratio(probs, experts, top_k),
        "logit_sum": logit_sum(logits, experts),
    }
    if probs.shape[-1] == experts:
        return of_experts
    of_trash = {
        "trash_mass": trash_mass(probs, experts),
        "trash_slots": trash_slots(probs, experts, top_k),
    }
    return of_trash | of_experts


def mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that count, in fp64.

    Args:
        values: ``[batch, length]``, or ``[batch, length, width]``.
        mask: bool ``[batch, length]``, at least one true in a row; what it hides may be anything.

    Returns:
        ``[batch]``, or ``[batch, width]``.
    """
    shaped = mask.reshape(*mask.shape, *(1,) * (values.dim() - 2))
    total = torch.where(shaped, values, 0).sum(dim=1, dtype=torch.float64)
    return total / shaped.sum(dim=1)

"""From a router's logits to probabilities, and from tokens to examples: pure functions."""

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

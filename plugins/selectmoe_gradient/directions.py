"""Which way a weight moves when an optimizer takes a step on one example."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["paper", "released-code"]
RELEASED_EPSILON = 1e-8


@dataclass(frozen=True)
class Adam:
    """The state of an Adam optimizer after some steps, except its moments.

    Attributes:
        step: steps taken.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: what is added to the square root.
    """

    step: int
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def factors(self, rule: Rule, device: torch.device | str) -> Tensor:
        """Return the numbers that ``direction`` works with, fp32 ``[8]``.

        ``paper`` corrects the bias of both moments, as the paper and AdamW's next step do.
        ``released-code`` does as the code that was released with the paper: no correction, and the
        epsilon is under the root, where it is large beside small gradients.
        """
        if rule == "paper":
            corrected = [1 / (1 - beta ** (self.step + 1)) for beta in (self.beta1, self.beta2)]
            tail = [*corrected, 0.0, self.epsilon]
        else:
            tail = [1.0, 1.0, RELEASED_EPSILON, 0.0]
        head = [self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2]
        return torch.tensor(head + tail, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Direction:
    """How the entries of one weight are preconditioned.

    Attributes:
        first: Adam's first moment of each entry, fp32.
        second: Adam's second moment of each entry, fp32.
        factors: see ``Adam.factors``.
    """

    first: Tensor
    second: Tensor
    factors: Tensor


def direction(gradient: Tensor, first: Tensor, second: Tensor, factors: Tensor) -> Tensor:
    """Return Adam's step on a gradient, without learning rate and sign, fp32.

    Args:
        gradient: ``[..., entries]``.
        first: the first moment before the step, fp32 ``[entries]``.
        second: the second moment before the step, fp32 ``[entries]``.
        factors: see ``Adam.factors``.
    """
    old1, new1, old2, new2, scale1, scale2, inside, outside = factors.unbind()
    gradient = gradient.float()
    mean = old1 * first + new1 * gradient
    square = old2 * second + new2 * gradient * gradient
    return mean * scale1 / ((square * scale2 + inside).sqrt() + outside)

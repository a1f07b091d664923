"""The statistics of a token's routing, in one table from which everything else follows.

Columns of ``logits`` and ``probs`` are outputs of the router, the ``experts`` regular ones first,
then the trash cans. Each statistic grows with the use that a token makes of the regular experts.

A new statistic is a function and an entry here, and what ``kernels.of_tokens`` computes for it on a
GPU. Options, columns, widths and the kernel's offsets follow from the table. This module imports no
torch, because the options are read without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selectmoe_core import Meaning

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Statistic:
    """A number for every token, computed from its routing.

    Attributes:
        name: its name in recipes, and the name of the column in the scores.
        about: its description in the option's help.
        needs_trash: whether it is only useful for models with trash cans.
        meaning: how a report shows it: a mass on trash cans is stored as 1 minus the mass.
        plain: ``plain(logits, probs, experts, top_k)``, from ``[tokens, experts + trash]`` twice to
            fp32 ``[tokens]``.
    """

    name: str
    about: str
    needs_trash: bool
    meaning: Meaning
    plain: Callable[[Tensor, Tensor, int, int], Tensor]

    @property
    def offset(self) -> str:
        """The name under which the kernel gets the statistic's column."""
        return self.name.upper()


def trash_mass(_logits: Tensor, probs: Tensor, experts: int, _top_k: int) -> Tensor:
    """Return 1 - probability mass on trash cans."""
    return 1 - probs[:, experts:].sum(dim=-1)


def trash_slots(_logits: Tensor, probs: Tensor, experts: int, top_k: int) -> Tensor:
    """Return 1 - share of the ``top_k`` slots that went to trash cans: multiples of ``1 / top_k``.

    Ties go to the regular expert, as in Select-MoE's router.
    """
    import torch

    regular = probs[:, :experts].topk(top_k, dim=-1).values
    both = torch.cat([regular, probs[:, experts:]], dim=-1)
    order = both.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    return (order < top_k).sum(dim=-1, dtype=torch.float32) / top_k


def topk_ratio(_logits: Tensor, probs: Tensor, experts: int, top_k: int) -> Tensor:
    """Return ``r``, the sum of the ``top_k`` largest regular-expert probabilities.

    The softmax is the one over all outputs, so the mass on trash cans lowers it.
    """
    return probs[:, :experts].topk(top_k, dim=-1).values.sum(dim=-1)


def logit_sum(logits: Tensor, _probs: Tensor, experts: int, _top_k: int) -> Tensor:
    """Return the sum of the regular experts' logits in fp32.

    The score of the experiment that the method comes from. Not invariant to a constant added to all
    logits of a token, which routing does not see.
    """
    import torch

    return logits[:, :experts].sum(dim=-1, dtype=torch.float32)


STATISTICS = (
    Statistic(
        "trash_mass",
        "1 - mass on trash cans",
        True,
        Meaning("mass on trash cans", complement=True, share=True),
        trash_mass,
    ),
    Statistic(
        "trash_slots",
        "1 - share of top-k slots that went to trash cans",
        True,
        Meaning("top-k slots that went to trash cans", complement=True, share=True),
        trash_slots,
    ),
    Statistic(
        "topk_ratio",
        "the top-k mass of the regular experts",
        False,
        Meaning("top-k mass of the regular experts", share=True),
        topk_ratio,
    ),
    Statistic(
        "logit_sum",
        "the sum of the regular experts' logits",
        False,
        Meaning("sum of the regular experts' logits"),
        logit_sum,
    ),
)
"""Every statistic, in the order of the columns."""


def available(trash: int) -> tuple[Statistic, ...]:
    """Return the statistics of a router with so many trash cans, in the order of the columns."""
    return tuple(entry for entry in STATISTICS if trash or not entry.needs_trash)

"""The memory-bound steps of the packed decoder, each as one function, and what it computes.

``Steps`` are interchangeable: ``TorchSteps`` says in plain torch what the kernels that
``launches`` starts compute. Shapes: ``N`` tokens, ``H`` hidden, ``I`` width of an expert, ``K``
slots, ``E`` regular experts, ``T`` trash cans, ``P = N * K`` pairs of a token and a slot.
Arithmetic is in fp32 inside a step; what a step writes has the dtype of the model.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Routed:
    """The routing of the slots of a batch.

    Attributes:
        logits: fp32 ``[N, E + T]``.
        index: ``[N, K]``: the output of each slot; from ``E`` on it is a trash can.
        position: int32 ``[N, K]``: a pair's row in expert order, -1 for a trash can's.
        scores: fp32 ``[N, K]``: the weight of each slot.
        ends: int32 ``[E]``: the row after each expert's last one; the last is the number of pairs.
    """

    logits: Tensor
    index: Tensor
    position: Tensor
    scores: Tensor
    ends: Tensor


@dataclass(frozen=True)
class Gate:
    """A router: weight ``[E + T, H]``, regular experts first."""

    weight: Tensor
    experts: int
    top_k: int
    normed: bool


class Steps(Protocol):
    """What the packed decoder needs besides matrix products and attention."""

    name: str

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMS norm of ``[N, H]`` over H."""
        ...

    def add_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Return ``x + delta`` and its RMS norm, both ``[N, H]``; ``x`` may be overwritten."""
        ...

    def norm_rotary_(
        self,
        x: Tensor,
        weight: Tensor,
        tables: tuple[Tensor, Tensor],
        positions: Tensor,
        eps: float,
    ) -> None:
        """RMS norm over the heads together, then rotary positions, in place on ``[N, heads, D]``.

        ``tables``: cosines and sines, fp32 ``[positions, D / 2]``; ``positions`` int32 ``[N]``.
        Rows may be apart (a stride); a row's own numbers must be contiguous.
        """
        ...

    def route(self, hidden: Tensor, gate: Gate) -> Routed:
        """Product with the gate, choice of the top k over all outputs, and their order."""
        ...

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """Copy ``[N, H]`` into expert order ``[P, H]``; rows after the last pair stay unset."""
        ...

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:
        """``silu(gate) * up`` of ``[P, 2 I]``: ``[P, I]``; rows after the last stay unset."""
        ...

    def combine(
        self,
        x: Tensor | None,
        pairs: Tensor,
        routed: Routed,
        weight: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor | None]:
        """Return ``x`` plus each token's weighted sum over its slots, and that's RMS norm.

        Without ``x`` there is only the sum, without ``weight`` no norm; ``x`` may be overwritten.
        """
        ...


class TorchSteps:
    """The steps in plain torch: the reference for the kernels."""

    name = "torch"

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See ``Steps``."""
        return _norm(x.float(), weight, eps).to(x.dtype)

    def add_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See ``Steps``."""
        total = x.float() + delta.float()
        return total.to(x.dtype), _norm(total, weight, eps).to(x.dtype)

    def norm_rotary_(
        self,
        x: Tensor,
        weight: Tensor,
        tables: tuple[Tensor, Tensor],
        positions: Tensor,
        eps: float,
    ) -> None:
        """See ``Steps``."""
        normed = _norm(x.float().flatten(1), weight, eps).view(x.shape)
        left, right = normed.chunk(2, dim=-1)
        cosine, sine = (table[positions.long(), None] for table in tables)
        x.copy_(torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1))

    def route(self, hidden: Tensor, gate: Gate) -> Routed:
        """See ``Steps``."""
        logits = hidden.float() @ gate.weight.float().t()
        probs = torch.softmax(logits, dim=-1)
        order = probs.sort(dim=-1, descending=True, stable=True)
        scores, index = order.values[:, : gate.top_k], order.indices[:, : gate.top_k]
        if gate.normed:
            scores = scores / scores.sum(dim=-1, keepdim=True)
        flat = index.reshape(-1)
        rank = flat.argsort(stable=True).argsort()
        position = torch.where(flat < gate.experts, rank, -1).view_as(index)
        counts = torch.zeros(logits.shape[1], dtype=torch.int64, device=flat.device)
        counts.scatter_add_(0, flat, torch.ones_like(flat))
        ends = counts[: gate.experts].cumsum(0).to(torch.int32)
        return Routed(logits, index, position.to(torch.int32), scores.contiguous(), ends)

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """See ``Steps``."""
        tokens, top_k = position.shape
        out = hidden.new_zeros(tokens * top_k + 1, hidden.shape[1])
        at = position.long().reshape(-1)
        out[torch.where(at < 0, tokens * top_k, at)] = hidden.repeat_interleave(top_k, dim=0)
        return out[:-1]

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:  # noqa: ARG002
        """See ``Steps``."""
        gates, ups = both.float().chunk(2, dim=-1)
        return (functional.silu(gates) * ups).to(both.dtype)

    def combine(
        self,
        x: Tensor | None,
        pairs: Tensor,
        routed: Routed,
        weight: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor | None]:
        """See ``Steps``."""
        at = routed.position.long()
        kept = (at >= 0)[..., None]
        parts = torch.where(kept, pairs[at.clamp(min=0)].float(), 0)
        total = (parts * routed.scores[..., None]).sum(dim=1)
        total = total if x is None else total + x.float()
        normed = None if weight is None else _norm(total, weight, eps).to(pairs.dtype)
        return total.to(pairs.dtype), normed


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight.float()

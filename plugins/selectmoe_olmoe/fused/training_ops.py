"""The memory-bound steps of packed training, forward and backward, and what each computes.

``TorchTrainingSteps`` says in plain torch what the kernels that ``training_launches`` starts
compute; ``autograd`` gives either its gradient. Shapes as in ``ops``: ``N`` tokens,
``H`` hidden, ``I`` width of an expert, ``K`` slots, ``E`` regular experts, ``T`` trash cans,
``P = N * K`` pairs. The residual stream has the dtype of the embedding; what enters a matrix
product has ``dtype``, the one that is computed in. Inside a step arithmetic is in fp32.
"""

from typing import Protocol

import torch
from torch import Tensor

from selectmoe_olmoe.fused.ops import Gate, Routed, TorchSteps

Tables = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary positions, fp32 ``[positions, D / 2]`` each."""


class TrainingSteps(Protocol):
    """What packed training needs besides matrix products and attention.

    Gradients of weights are fp32, and ``None`` unless ``weighted`` asks for them.
    """

    name: str

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Return ``x + delta`` in the dtype of ``x`` and its RMS norm in ``dtype``, ``[N, H]``."""
        ...

    def norm_backward(
        self,
        total: Tensor,
        weight: Tensor,
        grad: Tensor,
        behind: Tensor | None,
        eps: float,
        *,
        weighted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of ``total``, ``behind`` added, and of the weight."""
        ...

    def norm_rotary(
        self, x: Tensor, weight: Tensor, tables: Tables, positions: Tensor, eps: float
    ) -> Tensor:
        """RMS norm over the heads together, then rotary positions, of ``[N, heads, D]``."""
        ...

    def norm_rotary_backward(
        self,
        x: Tensor,
        weight: Tensor,
        tables: Tables,
        positions: Tensor,
        grad: Tensor,
        eps: float,
        *,
        weighted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of ``x`` and of the weight."""
        ...

    def route(self, hidden: Tensor, gate: Gate) -> Routed:
        """Product with the gate, choice of the top k over all outputs, and their order."""
        ...

    def route_backward(
        self, routed: Routed, scores: Tensor | None, logits: Tensor | None, *, normed: bool
    ) -> Tensor:
        """Return the gradient of the gate's product, fp32 ``[N, E + T]``.

        Args:
            routed: what ``route`` returned.
            scores: gradient of the scores, zero for slots that go to trash cans.
            logits: gradient that reaches the logits themselves.
            normed: whether the scores of a token were made to sum to 1.
        """
        ...

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """Copy ``[N, H]`` into expert order ``[P, H]``; rows after the last pair stay unset."""
        ...

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:
        """``silu(gate) * up`` of ``[P, 2 I]``: ``[P, I]``; rows after the last stay unset."""
        ...

    def silu_times_backward(
        self, both: Tensor, grad: Tensor, position: Tensor, scores: Tensor, *, weighted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Backward of the activation and of the slots' weights in one.

        Args:
            both: ``[P, 2 I]``, the input of ``silu_times``.
            grad: gradient of what it returned, before the weights of the slots: ``[P, I]``.
            position: ``[N, K]``.
            scores: ``[N, K]``.
            weighted: whether the third result is wanted.

        Returns:
            The gradients of ``both`` and of the scores, and the activations times their scores,
            ``[P, I]``; rows after the last pair stay unset.
        """
        ...

    def combine(self, x: Tensor | None, pairs: Tensor, position: Tensor, scores: Tensor) -> Tensor:
        """Return ``x`` (in its dtype) plus each token's weighted sum over its slots."""
        ...

    def cross_entropy_(
        self, logits: Tensor, labels: Tensor, weights: Tensor, *, gradient: bool
    ) -> Tensor:
        """Return the weighted negative log probability of each label, fp32 ``[rows]``.

        With ``gradient`` the logits ``[rows, vocabulary]`` are overwritten by their gradient.
        """
        ...


class TorchTrainingSteps:
    """The steps in plain torch: the reference for the kernels."""

    name = "torch"

    def __init__(self) -> None:
        self._steps = TorchSteps()

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """See ``TrainingSteps``."""
        total = x.float() if delta is None else x.float() + delta.float()
        scale = torch.rsqrt(total.square().mean(dim=-1, keepdim=True) + eps)
        kept = x if delta is None else total.to(x.dtype)
        return kept, (total * scale * weight.float()).to(dtype)

    def norm_backward(
        self,
        total: Tensor,
        weight: Tensor,
        grad: Tensor,
        behind: Tensor | None,
        eps: float,
        *,
        weighted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """See ``TrainingSteps``."""
        x, grad = total.float(), grad.float()
        scale = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)
        unit, inner = x * scale, grad * weight.float()
        found = (inner - unit * (unit * inner).mean(dim=-1, keepdim=True)) * scale
        found = found if behind is None else found + behind.float()
        return found.to(total.dtype), (grad * unit).sum(dim=0) if weighted else None

    def norm_rotary(
        self, x: Tensor, weight: Tensor, tables: Tables, positions: Tensor, eps: float
    ) -> Tensor:
        """See ``TrainingSteps``."""
        turned = x.clone()
        self._steps.norm_rotary_(turned, weight, tables, positions, eps)
        return turned

    def norm_rotary_backward(
        self,
        x: Tensor,
        weight: Tensor,
        tables: Tables,
        positions: Tensor,
        grad: Tensor,
        eps: float,
        *,
        weighted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """See ``TrainingSteps``."""
        left, right = grad.float().chunk(2, dim=-1)
        cosine, sine = (table[positions.long(), None] for table in tables)
        turned = torch.cat([left * cosine + right * sine, right * cosine - left * sine], dim=-1)
        found, gain = self.norm_backward(
            x.flatten(1), weight, turned.flatten(1), None, eps, weighted=weighted
        )
        return found.view(x.shape), gain

    def route(self, hidden: Tensor, gate: Gate) -> Routed:
        """See ``TrainingSteps``."""
        return self._steps.route(hidden, gate)

    def route_backward(
        self, routed: Routed, scores: Tensor | None, logits: Tensor | None, *, normed: bool
    ) -> Tensor:
        """See ``TrainingSteps``."""
        if scores is None:
            assert logits is not None
            return logits
        inner = (scores * routed.scores).sum(dim=-1, keepdim=True)
        at = routed.index.long()
        zeros = torch.zeros_like(routed.logits)
        if normed:
            found = zeros.scatter(-1, at, routed.scores * (scores - inner))
        else:
            found = routed.logits.softmax(dim=-1) * (zeros.scatter(-1, at, scores) - inner)
        return found if logits is None else found + logits

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        return self._steps.spread(hidden, position)

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        return self._steps.silu_times(both, ends)

    def silu_times_backward(
        self, both: Tensor, grad: Tensor, position: Tensor, scores: Tensor, *, weighted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See ``TrainingSteps``."""
        at = position.long()
        kept, at = at >= 0, at.clamp(min=0)
        share = both.new_zeros(len(both), dtype=torch.float32)
        share[at[kept]] = scores[kept]
        gates, ups = both.float().chunk(2, dim=-1)
        gain = torch.sigmoid(gates)
        acted, grad = gates * gain * ups, grad.float()
        shares = torch.where(kept, (grad * acted).sum(dim=-1)[at], 0.0)
        grad = grad * share[:, None]
        slopes = grad * ups * gain * (1 + gates * (1 - gain))
        found = torch.cat([slopes, grad * gates * gain], dim=-1).to(both.dtype)
        return found, shares, (acted * share[:, None]).to(both.dtype) if weighted else None

    def combine(self, x: Tensor | None, pairs: Tensor, position: Tensor, scores: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        at = position.long()
        parts = torch.where((at >= 0)[..., None], pairs[at.clamp(min=0)].float(), 0)
        total = (parts * scores[..., None]).sum(dim=1)
        return total.to(pairs.dtype) if x is None else (total + x.float()).to(x.dtype)

    def cross_entropy_(
        self, logits: Tensor, labels: Tensor, weights: Tensor, *, gradient: bool
    ) -> Tensor:
        """See ``TrainingSteps``."""
        logs = logits.float().log_softmax(dim=-1)
        losses = -logs.gather(-1, labels[:, None])[:, 0] * weights
        if gradient:
            found = logs.exp()
            found.scatter_add_(-1, labels[:, None], -torch.ones_like(weights)[:, None])
            logits.copy_(found * weights[:, None])
        return losses

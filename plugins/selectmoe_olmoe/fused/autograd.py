"""Autograd functions of packed training over interchangeable ``TrainingSteps``.

Each saves only what its backward pass needs, computes only the requested gradients, and never waits
for the device. Weights may be fp32 while products run in bf16: they are cast when they are used,
again in the backward pass, so that no copy is kept.
"""

# mypy: disable-error-code="no-untyped-call"

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from selectmoe_olmoe.fused.ops import Gate, Routed
from selectmoe_olmoe.fused.training_ops import Tables, TrainingSteps

LOGIT_BYTES = 2**28
"""The most bytes of vocabulary logits that are held at once."""


class _AddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        delta: Tensor | None,
        weight: Tensor,
        eps: float,
        dtype: torch.dtype,
        steps: TrainingSteps,
    ) -> tuple[Tensor, Tensor]:
        total, normed = steps.add_norm(x, delta, weight, eps, dtype)
        ctx.save_for_backward(total, weight)
        ctx.eps, ctx.steps, ctx.kind = eps, steps, None if delta is None else delta.dtype
        return total, normed

    @staticmethod
    def backward(ctx: Any, behind: Tensor | None, grad: Tensor) -> Any:  # noqa: ANN401
        total, weight = ctx.saved_tensors
        weighted = ctx.needs_input_grad[2]
        found, gain = ctx.steps.norm_backward(
            total, weight, grad.contiguous(), behind, ctx.eps, weighted=weighted
        )
        gain = None if gain is None else gain.to(weight.dtype)
        return found, None if ctx.kind is None else found.to(ctx.kind), gain, None, None, None


class _Norm(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        eps: float,
        dtype: torch.dtype,
        steps: TrainingSteps,
    ) -> Tensor:
        _, normed = steps.add_norm(x, None, weight, eps, dtype)
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.steps = eps, steps
        return normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        found, gain = ctx.steps.norm_backward(
            x, weight, grad.contiguous(), None, ctx.eps, weighted=ctx.needs_input_grad[1]
        )
        return found, None if gain is None else gain.to(weight.dtype), None, None, None


class _NormRotary(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        tables: Tables,
        positions: Tensor,
        eps: float,
        steps: TrainingSteps,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, positions, *tables)
        ctx.eps, ctx.steps = eps, steps
        return steps.norm_rotary(x, weight, tables, positions, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # noqa: ANN401
        x, weight, positions, *tables = ctx.saved_tensors
        found, gain = ctx.steps.norm_rotary_backward(
            x,
            weight,
            tuple(tables),
            positions,
            grad.contiguous(),
            ctx.eps,
            weighted=ctx.needs_input_grad[1],
        )
        return found, None if gain is None else gain.to(weight.dtype), None, None, None, None


class _Route(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden: Tensor,
        weight: Tensor,
        gate: Gate,
        steps: TrainingSteps,
    ) -> tuple[Tensor, ...]:
        routed = steps.route(hidden, replace(gate, weight=weight.to(hidden.dtype)))
        found = (routed.logits, routed.scores, routed.index, routed.position, routed.ends)
        ctx.save_for_backward(hidden, weight, *found)
        ctx.set_materialize_grads(value=False)
        ctx.mark_non_differentiable(*found[2:])
        ctx.normed, ctx.steps = gate.normed, steps
        return found

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        of_logits: Tensor | None,
        of_scores: Tensor | None,
        *_: Tensor | None,
    ) -> Any:  # noqa: ANN401
        if of_logits is None and of_scores is None:
            return None, None, None, None
        hidden, weight, logits, scores, index, position, ends = ctx.saved_tensors
        routed = Routed(logits, index, position, scores, ends)
        grad = ctx.steps.route_backward(routed, of_scores, of_logits, normed=ctx.normed)
        grad = grad.to(hidden.dtype)
        wanted = ctx.needs_input_grad
        back = grad @ weight.to(hidden.dtype) if wanted[0] else None
        gain = (grad.t() @ hidden).to(weight.dtype) if wanted[1] else None
        return back, gain, None, None


class _Experts(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        hidden: Tensor,
        scores: Tensor,
        gate_up: Tensor,
        down: Tensor,
        position: Tensor,
        ends: Tensor,
        steps: TrainingSteps,
    ) -> Tensor:
        kind = hidden.dtype
        rows = steps.spread(hidden, position)
        both = functional.grouped_mm(rows, gate_up.to(kind).transpose(1, 2), offs=ends)
        acted = steps.silu_times(both, ends)
        pairs = functional.grouped_mm(acted, down.to(kind).transpose(1, 2), offs=ends)
        ctx.save_for_backward(hidden, scores, gate_up, down, position, ends, both)
        ctx.steps = steps
        return steps.combine(x, pairs, position, scores)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # noqa: ANN401
        hidden, scores, gate_up, down, position, ends, both = ctx.saved_tensors
        steps, kind = ctx.steps, hidden.dtype
        _, to_hidden, _, to_gate_up, to_down, *_ = ctx.needs_input_grad
        spread = steps.spread(grad.contiguous().to(kind), position)
        acted = functional.grouped_mm(spread, down.to(kind), offs=ends)
        of_both, of_scores, scaled = steps.silu_times_backward(
            both, acted, position, scores, weighted=to_down
        )
        del acted
        of_down = of_gate_up = of_hidden = None
        if to_down:
            of_down = functional.grouped_mm(spread.t(), scaled, offs=ends).to(down.dtype)
        del spread, scaled
        if to_gate_up:
            rows = steps.spread(hidden, position)
            of_gate_up = functional.grouped_mm(of_both.t(), rows, offs=ends).to(gate_up.dtype)
            del rows
        if to_hidden:
            rows = functional.grouped_mm(of_both, gate_up.to(kind), offs=ends)
            of_hidden = steps.combine(None, rows, position, torch.ones_like(scores))
        return grad, of_hidden, of_scores, of_gate_up, of_down, None, None, None


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        weights: Tensor,
        steps: TrainingSteps,
    ) -> Tensor:
        to_hidden, to_weight = ctx.needs_input_grad[:2]
        head = weight.to(hidden.dtype)
        size = max(1, LOGIT_BYTES // (len(head) * head.element_size()))
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        of_hidden = torch.empty_like(hidden) if to_hidden else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if to_weight else None
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = functional.linear(hidden[part], head)
            total = (
                total
                + steps.cross_entropy_(
                    logits, labels[part], weights[part], gradient=to_hidden or to_weight
                ).sum()
            )
            if of_hidden is not None:
                torch.mm(logits, head, out=of_hidden[part])
            if of_weight is not None:
                of_weight += logits.t() @ hidden[part]
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.kind = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # noqa: ANN401
        of_hidden, of_weight = ctx.saved_tensors
        # In fp32: a factor rounded to bf16 would scale the whole gradient.
        of_hidden = None if of_hidden is None else (of_hidden.float() * grad).to(of_hidden.dtype)
        of_weight = None if of_weight is None else (of_weight * grad).to(ctx.kind)
        return of_hidden, of_weight, None, None, None


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, steps: TrainingSteps) -> Tensor:
    """Return the RMS norm of ``[N, H]`` in ``dtype``."""
    found: Tensor = _Norm.apply(x, weight, eps, dtype, steps)
    return found


def add_norm(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    eps: float,
    dtype: torch.dtype,
    steps: TrainingSteps,
) -> tuple[Tensor, Tensor]:
    """Return ``x + delta`` and its RMS norm in ``dtype``, both ``[N, H]``."""
    total, normed = _AddNorm.apply(x, delta, weight, eps, dtype, steps)
    return total, normed


def norm_rotary(
    x: Tensor,
    weight: Tensor,
    tables: Tables,
    positions: Tensor,
    eps: float,
    steps: TrainingSteps,
) -> Tensor:
    """Return the RMS norm over all heads of ``[N, heads, D]``, turned by rotary positions."""
    found: Tensor = _NormRotary.apply(x, weight, tables, positions, eps, steps)
    return found


def route(hidden: Tensor, gate: Gate, steps: TrainingSteps) -> Routed:
    """Return where a gate sends ``[N, H]``; logits and scores have gradients."""
    logits, scores, index, position, ends = _Route.apply(hidden, gate.weight, gate, steps)
    return Routed(logits, index, position, scores, ends)


def experts(
    x: Tensor,
    hidden: Tensor,
    routed: Routed,
    gate_up: Tensor,
    down: Tensor,
    steps: TrainingSteps,
) -> Tensor:
    """Return ``x`` plus the weighted sum of the experts of ``hidden``, both ``[N, H]``.

    Slots that go to trash cans are computed in neither direction. The outputs of the experts are
    not kept: the gradient of a slot's weight comes from the activations.

    Args:
        x: the residual stream.
        hidden: what the experts read.
        routed: where the slots go.
        gate_up: ``[E, 2 I, H]``, the gate's half first.
        down: ``[E, H, I]``.
        steps: how the memory-bound steps run.
    """
    found: Tensor = _Experts.apply(
        x, hidden, routed.scores, gate_up, down, routed.position, routed.ends, steps
    )
    return found


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, steps: TrainingSteps
) -> Tensor:
    """Return the weighted sum of the labels' negative log probabilities, an fp32 scalar.

    The logits are made and turned into gradients a chunk at a time, already in the forward pass:
    they never exist all at once (as in Liger-Kernel, Hsu et al. 2024, arXiv:2410.10989).

    Args:
        hidden: ``[M, H]``.
        weight: the head, ``[vocabulary, H]``.
        labels: int64 ``[M]``.
        weights: fp32 ``[M]``.
        steps: how the memory-bound steps run.
    """
    found: Tensor = _LinearCrossEntropy.apply(hidden, weight, labels, weights, steps)
    return found

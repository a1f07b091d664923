"""The steps of packed training as launches of Triton kernels; ``training_ops`` says what they do.

The forward pass uses the kernels of scoring if they fit: ``kernels`` and ``launches``.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.fused.launches import TritonSteps, power
from selectmoe_olmoe.fused.ops import Gate, Routed
from selectmoe_olmoe.fused.training_ops import Tables

PROGRAMS = 528
"""The most programs that share the rows of a norm whose weight has a gradient: four for each of an
H100's processors. Each writes a row of partial sums."""


class TritonTrainingSteps:
    """The steps as Triton kernels, one launch each (``route``: three and a short scan)."""

    name = "triton"

    def __init__(self, warps: int = 4) -> None:
        from selectmoe_olmoe.fused import training_kernels

        self._kernels: Any = training_kernels
        self._steps = TritonSteps(warps)
        self._warps = warps

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """See ``TrainingSteps``."""
        x = x.contiguous()
        normed = torch.empty(x.shape, dtype=dtype, device=x.device)
        if delta is None:
            return x, self._steps.into_norm(x, None, weight, x, normed, eps)
        total = torch.empty_like(x)
        return total, self._steps.into_norm(x, delta.contiguous(), weight, total, normed, eps)

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
        rows, width = total.shape
        out = torch.empty_like(total)
        per = power(-(-rows // PROGRAMS)) if weighted else 1
        programs = -(-rows // per)
        gains = grad.new_empty((programs if weighted else 1, width), dtype=torch.float32)
        self._kernels.norm_backward[(programs,)](
            total,
            weight,
            grad,
            total if behind is None else behind.contiguous(),
            out,
            gains,
            rows,
            width,
            eps,
            PER=per,
            BEHIND=behind is not None,
            WEIGHTED=weighted,
            BLOCK=power(width),
            num_warps=self._warps,
        )
        return out, gains.sum(dim=0) if weighted else None

    def norm_rotary(
        self, x: Tensor, weight: Tensor, tables: Tables, positions: Tensor, eps: float
    ) -> Tensor:
        """See ``TrainingSteps``."""
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        return self._steps.into_norm_rotary(x, weight, tables, positions, out, eps)

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
        rows, heads, size = x.shape
        out = torch.empty_like(grad)
        per = power(-(-rows // PROGRAMS)) if weighted else 1
        programs = -(-rows // per)
        shape = (programs if weighted else 1, heads * size)
        gains = grad.new_empty(shape, dtype=torch.float32)
        self._kernels.norm_rotary_backward[(programs,)](
            x,
            x.stride(0),
            weight,
            *tables,
            positions,
            grad,
            out,
            gains,
            rows,
            eps,
            heads,
            PER=per,
            WEIGHTED=weighted,
            HEADS=power(heads),
            HALF=size // 2,
            num_warps=self._warps,
        )
        return out, gains.sum(dim=0) if weighted else None

    def route(self, hidden: Tensor, gate: Gate) -> Routed:
        """See ``TrainingSteps``."""
        return self._steps.route(hidden, replace(gate, weight=gate.weight.contiguous()))

    def route_backward(
        self, routed: Routed, scores: Tensor | None, logits: Tensor | None, *, normed: bool
    ) -> Tensor:
        """See ``TrainingSteps``."""
        tokens, outputs = routed.logits.shape
        out = torch.empty_like(routed.logits)
        rows = 16
        self._kernels.route_backward[(-(-tokens // rows),)](
            routed.logits,
            routed.index,
            routed.scores,
            routed.scores if scores is None else scores.contiguous(),
            routed.logits if logits is None else logits.contiguous(),
            out,
            tokens,
            outputs,
            SCORES=scores is not None,
            LOGITS=logits is not None,
            NORMED=normed,
            TOP_K=routed.index.shape[1],
            ROWS=rows,
            COLUMNS=max(16, power(outputs)),
            num_warps=self._warps,
        )
        return out

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        return self._steps.spread(hidden.contiguous(), position)

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        return self._steps.silu_times(both, ends)

    def silu_times_backward(
        self, both: Tensor, grad: Tensor, position: Tensor, scores: Tensor, *, weighted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See ``TrainingSteps``."""
        tokens, top_k = position.shape
        width = grad.shape[1]
        out, of_scores = torch.empty_like(both), torch.empty_like(scores)
        scaled = torch.empty_like(grad) if weighted else None
        self._kernels.silu_times_backward[(tokens,)](
            both,
            grad,
            position,
            scores,
            out,
            of_scores,
            grad if scaled is None else scaled,
            width,
            WEIGHTED=weighted,
            TOP_K=top_k,
            BLOCK=power(width),
            num_warps=self._warps,
        )
        return out, of_scores, scaled

    def combine(self, x: Tensor | None, pairs: Tensor, position: Tensor, scores: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        kind = pairs.dtype if x is None else x.dtype
        shape = len(position), pairs.shape[1]
        total = torch.empty(shape, dtype=kind, device=pairs.device)
        x = None if x is None else x.contiguous()
        return self._steps.into_sum(x, pairs, position, scores, total)

    def cross_entropy_(
        self, logits: Tensor, labels: Tensor, weights: Tensor, *, gradient: bool
    ) -> Tensor:
        """See ``TrainingSteps``."""
        rows, vocabulary = logits.shape
        losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
        self._kernels.cross_entropy[(rows,)](
            logits,
            labels,
            weights,
            losses,
            VOCABULARY=vocabulary,
            GRADIENT=gradient,
            BLOCK=min(4096, max(16, power(vocabulary))),
            num_warps=8,
        )
        return losses

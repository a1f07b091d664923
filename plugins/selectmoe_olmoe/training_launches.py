"""The steps of packed training as launches of Triton kernels; ``training_steps`` says what they do.

The forward pass shares the kernels of scoring where they fit: ``kernels`` and ``launches``.
"""

from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.launches import TritonSteps
from selectmoe_olmoe.steps import Routed
from selectmoe_olmoe.training_steps import Choice, Routing, Tables

PROGRAMS = 528
"""At most so many programs share the rows of a norm whose weight has a gradient, four for each of
an H100's processors: each leaves a row of partial sums."""


class TritonTrainingSteps:
    """The steps as Triton kernels, one launch each (``route``: three and a short scan)."""

    name = "triton"

    def __init__(self, warps: int = 4) -> None:
        from selectmoe_olmoe import kernels, training_kernels

        self._kernels: Any = training_kernels
        self._scoring: Any = kernels
        self._steps = TritonSteps(warps)
        self._warps = warps

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """See ``TrainingSteps``."""
        rows, width = x.shape
        x = x.contiguous()
        normed = torch.empty((rows, width), dtype=dtype, device=x.device)
        total = x if delta is None else torch.empty_like(x)
        self._scoring.add_norm[(rows,)](
            x,
            x if delta is None else delta.contiguous(),
            weight,
            total,
            normed,
            width,
            eps,
            ADD=delta is not None,
            BLOCK=_power(width),
            num_warps=self._warps,
        )
        return total, normed

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
        per = _power(-(-rows // PROGRAMS)) if weighted else 1
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
            BLOCK=_power(width),
            num_warps=self._warps,
        )
        return out, gains.sum(dim=0) if weighted else None

    def norm_rotary(
        self, x: Tensor, weight: Tensor, tables: Tables, positions: Tensor, eps: float
    ) -> Tensor:
        """See ``TrainingSteps``."""
        rows, heads, size = x.shape
        out = torch.empty((rows, heads, size), dtype=x.dtype, device=x.device)
        self._kernels.norm_rotary[(rows,)](
            x,
            x.stride(0),
            weight,
            *tables,
            positions,
            out,
            eps,
            heads,
            HEADS=_power(heads),
            HALF=size // 2,
            num_warps=self._warps,
        )
        return out

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
        per = _power(-(-rows // PROGRAMS)) if weighted else 1
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
            HEADS=_power(heads),
            HALF=size // 2,
            num_warps=self._warps,
        )
        return out, gains.sum(dim=0) if weighted else None

    def route(self, hidden: Tensor, weight: Tensor, choice: Choice) -> Routing:
        """See ``TrainingSteps``."""
        tokens, width = hidden.shape
        outputs, device, top_k = len(weight), hidden.device, choice.top_k
        logits = torch.empty((tokens, outputs), dtype=torch.float32, device=device)
        scores = torch.empty((tokens, top_k), dtype=torch.float32, device=device)
        index = torch.empty((tokens, top_k), dtype=torch.int32, device=device)
        rows = 64
        self._scoring.gate[(-(-tokens // rows),)](
            hidden,
            weight.contiguous(),
            logits,
            index,
            scores,
            tokens,
            outputs,
            WIDTH=width,
            EXACT=hidden.dtype == torch.float32,
            NORMED=choice.normed,
            TOP_K=top_k,
            ROWS=rows,
            COLUMNS=max(16, _power(outputs)),
            STEP=min(64, max(16, _power(width))),
            num_warps=self._warps,
            num_stages=3,
        )
        position, ends = self._steps._order(index, choice.experts)  # noqa: SLF001
        return Routing(logits, index, scores, position, ends)

    def route_backward(
        self, routing: Routing, scores: Tensor | None, logits: Tensor | None, *, normed: bool
    ) -> Tensor:
        """See ``TrainingSteps``."""
        tokens, outputs = routing.logits.shape
        out = torch.empty_like(routing.logits)
        rows = 16
        self._kernels.route_backward[(-(-tokens // rows),)](
            routing.logits,
            routing.index,
            routing.scores,
            routing.scores if scores is None else scores.contiguous(),
            routing.logits if logits is None else logits.contiguous(),
            out,
            tokens,
            outputs,
            SCORES=scores is not None,
            LOGITS=logits is not None,
            NORMED=normed,
            TOP_K=routing.index.shape[1],
            ROWS=rows,
            COLUMNS=max(16, _power(outputs)),
            num_warps=self._warps,
        )
        return out

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        return self._steps.spread(hidden.contiguous(), _routed(position, position))

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        return self._steps.silu_times(both, _routed(ends, ends))

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
            BLOCK=_power(width),
            num_warps=self._warps,
        )
        return out, of_scores, scaled

    def combine(self, x: Tensor | None, pairs: Tensor, position: Tensor, scores: Tensor) -> Tensor:
        """See ``TrainingSteps``."""
        (tokens, top_k), width = position.shape, pairs.shape[1]
        kind = pairs.dtype if x is None else x.dtype
        total = torch.empty((tokens, width), dtype=kind, device=pairs.device)
        self._scoring.combine[(tokens,)](
            total if x is None else x.contiguous(),
            pairs,
            position,
            scores,
            total,
            total,
            total,
            width,
            0.0,
            ADD=x is not None,
            NORM=False,
            TOP_K=top_k,
            BLOCK=_power(width),
            num_warps=self._warps,
        )
        return total

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
            BLOCK=min(4096, max(16, _power(vocabulary))),
            num_warps=8,
        )
        return losses


def _routed(position: Tensor, ends: Tensor) -> Routed:
    """Return as much of a ``Routed`` as moving rows asks for."""
    return Routed(position, position, position, ends)


def _power(number: int) -> int:
    """Return the least power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()

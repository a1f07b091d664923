"""The steps of the packed decoder as launches of Triton kernels; shapes as in ``ops``."""

from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.fused.ops import Gate, Routed


class TritonSteps:
    """The steps as Triton kernels, one launch each (``route``: three and a short scan)."""

    name = "triton"

    def __init__(self, warps: int = 4) -> None:
        from selectmoe_olmoe.fused import kernels

        self._kernels: Any = kernels
        self._warps = warps

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See ``Steps``."""
        return self.into_norm(x, None, weight, x, torch.empty_like(x), eps)

    def add_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See ``Steps``."""
        return x, self.into_norm(x, delta, weight, x, torch.empty_like(x), eps)

    def into_norm(
        self,
        x: Tensor,
        delta: Tensor | None,
        weight: Tensor,
        total: Tensor,
        normed: Tensor,
        eps: float,
    ) -> Tensor:
        """Write ``x + delta`` into ``total`` and its RMS norm into ``normed``, and return that.

        Without ``delta`` nothing is written into ``total``.
        """
        rows, width = x.shape
        self._kernels.add_norm[(rows,)](
            x,
            x if delta is None else delta,
            weight,
            total,
            normed,
            width,
            eps,
            ADD=delta is not None,
            BLOCK=power(width),
            num_warps=self._warps,
        )
        return normed

    def norm_rotary_(
        self,
        x: Tensor,
        weight: Tensor,
        tables: tuple[Tensor, Tensor],
        positions: Tensor,
        eps: float,
    ) -> None:
        """See ``Steps``."""
        self.into_norm_rotary(x, weight, tables, positions, x, eps)

    def into_norm_rotary(
        self,
        x: Tensor,
        weight: Tensor,
        tables: tuple[Tensor, Tensor],
        positions: Tensor,
        out: Tensor,
        eps: float,
    ) -> Tensor:
        """Write the result of ``norm_rotary_`` for ``x`` into ``out``, and return it."""
        rows, heads, size = x.shape
        self._kernels.norm_rotary[(rows,)](
            x,
            x.stride(0),
            weight,
            *tables,
            positions,
            out,
            out.stride(0),
            eps,
            heads,
            HEADS=power(heads),
            HALF=size // 2,
            num_warps=self._warps,
        )
        return out

    def route(self, hidden: Tensor, gate: Gate) -> Routed:
        """See ``Steps``."""
        tokens, width = hidden.shape
        outputs, device = len(gate.weight), hidden.device
        logits = torch.empty((tokens, outputs), dtype=torch.float32, device=device)
        scores = torch.empty((tokens, gate.top_k), dtype=torch.float32, device=device)
        index = torch.empty((tokens, gate.top_k), dtype=torch.int32, device=device)
        rows = 64
        self._kernels.gate[(-(-tokens // rows),)](
            hidden,
            gate.weight,
            logits,
            index,
            scores,
            tokens,
            outputs,
            WIDTH=width,
            EXACT=hidden.dtype == torch.float32,
            NORMED=gate.normed,
            TOP_K=gate.top_k,
            ROWS=rows,
            COLUMNS=max(16, power(outputs)),
            STEP=min(64, max(16, power(width))),
            num_warps=self._warps,
            num_stages=3,
        )
        position, ends = self._order(index, gate.experts)
        return Routed(logits, index, position, scores, ends)

    def _order(self, index: Tensor, experts: int) -> tuple[Tensor, Tensor]:
        """Sort the pairs by expert, and by token within an expert, without waiting for the device.

        Blocks of pairs count their experts; a running sum over experts, then blocks, says where
        each block's pairs of an expert begin.
        """
        pairs, block = index.numel(), 128
        blocks = -(-pairs // block)
        counts = torch.empty((experts, blocks), dtype=torch.int32, device=index.device)
        size = max(16, power(experts))
        self._kernels.count[(blocks,)](
            index,
            counts,
            pairs,
            blocks,
            BLOCK=block,
            EXPERTS=size,
            experts=experts,
            num_warps=self._warps,
        )
        running = counts.view(-1).cumsum(0, dtype=torch.int32)
        position = torch.empty_like(index)
        self._kernels.place[(blocks,)](
            index,
            counts,
            running,
            position,
            pairs,
            blocks,
            BLOCK=block,
            EXPERTS=size,
            experts=experts,
            num_warps=self._warps,
        )
        return position, running.view(experts, blocks)[:, -1].contiguous()

    def spread(self, hidden: Tensor, position: Tensor) -> Tensor:
        """See ``Steps``."""
        tokens, width = hidden.shape
        top_k = position.shape[1]
        out = hidden.new_empty((tokens * top_k, width))
        self._kernels.spread[(tokens,)](
            hidden,
            position,
            out,
            width,
            TOP_K=top_k,
            BLOCK=power(width),
            num_warps=self._warps,
        )
        return out

    def silu_times(self, both: Tensor, ends: Tensor) -> Tensor:
        """See ``Steps``."""
        pairs, width = both.shape[0], both.shape[1] // 2
        out = both.new_empty((pairs, width))
        rows = 4
        self._kernels.silu_times[(-(-pairs // rows),)](
            both,
            ends[-1:],
            out,
            width,
            ROWS=rows,
            BLOCK=power(width),
            num_warps=self._warps,
        )
        return out

    def combine(
        self,
        x: Tensor | None,
        pairs: Tensor,
        routed: Routed,
        weight: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor | None]:
        """See ``Steps``."""
        shape = len(routed.position), pairs.shape[1]
        total = pairs.new_empty(shape) if x is None else x
        normed = None if weight is None else torch.empty_like(total)
        self.into_sum(x, pairs, routed.position, routed.scores, total, weight, normed, eps)
        return total, normed

    def into_sum(
        self,
        x: Tensor | None,
        pairs: Tensor,
        position: Tensor,
        scores: Tensor,
        total: Tensor,
        weight: Tensor | None = None,
        normed: Tensor | None = None,
        eps: float = 0.0,
    ) -> Tensor:
        """Write what ``combine`` returns into ``total`` and ``normed``, and return the first."""
        (tokens, top_k), width = position.shape, pairs.shape[1]
        self._kernels.combine[(tokens,)](
            total if x is None else x,
            pairs,
            position,
            scores,
            total if weight is None else weight,
            total,
            total if normed is None else normed,
            width,
            eps,
            ADD=x is not None,
            NORM=weight is not None,
            TOP_K=top_k,
            BLOCK=power(width),
            num_warps=self._warps,
        )
        return total


def power(number: int) -> int:
    """Return the least power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()

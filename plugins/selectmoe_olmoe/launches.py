"""The steps of the packed decoder as launches of Triton kernels; shapes as in ``steps``."""

from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.steps import Gate, Routed


class TritonSteps:
    """The steps as Triton kernels, one launch each (``route``: three and a short scan)."""

    name = "triton"

    def __init__(self, warps: int = 4) -> None:
        from selectmoe_olmoe import kernels

        self._kernels: Any = kernels
        self._warps = warps

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See ``Steps``."""
        return self._add_norm(x, x, weight, eps, add=False)

    def add_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See ``Steps``."""
        return x, self._add_norm(x, delta, weight, eps, add=True)

    def _add_norm(
        self, x: Tensor, delta: Tensor, weight: Tensor, eps: float, *, add: bool
    ) -> Tensor:
        rows, width = x.shape
        normed = torch.empty_like(x)
        self._kernels.add_norm[(rows,)](
            x,
            delta,
            weight,
            x,
            normed,
            width,
            eps,
            ADD=add,
            BLOCK=_power(width),
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
        rows, heads, size = x.shape
        self._kernels.norm_rotary[(rows,)](
            x,
            x.stride(0),
            weight,
            *tables,
            positions,
            eps,
            heads,
            HEADS=_power(heads),
            HALF=size // 2,
            num_warps=self._warps,
        )

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
            COLUMNS=max(16, _power(outputs)),
            STEP=min(64, max(16, _power(width))),
            num_warps=self._warps,
            num_stages=3,
        )
        position, ends = self._order(index, gate.experts)
        return Routed(logits, position, scores, ends)

    def _order(self, index: Tensor, experts: int) -> tuple[Tensor, Tensor]:
        """Sort the pairs by expert, in the order of tokens within one, without asking the device.

        Blocks of pairs count their experts; a running sum over experts, then blocks, says where
        each block's pairs of an expert begin.
        """
        pairs, block = index.numel(), 128
        blocks = -(-pairs // block)
        counts = torch.empty((experts, blocks), dtype=torch.int32, device=index.device)
        size = max(16, _power(experts))
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

    def spread(self, hidden: Tensor, routed: Routed) -> Tensor:
        """See ``Steps``."""
        tokens, width = hidden.shape
        top_k = routed.position.shape[1]
        out = hidden.new_empty((tokens * top_k, width))
        self._kernels.spread[(tokens,)](
            hidden,
            routed.position,
            out,
            width,
            TOP_K=top_k,
            BLOCK=_power(width),
            num_warps=self._warps,
        )
        return out

    def silu_times(self, both: Tensor, routed: Routed) -> Tensor:
        """See ``Steps``."""
        pairs, width = both.shape[0], both.shape[1] // 2
        out = both.new_empty((pairs, width))
        rows = 4
        self._kernels.silu_times[(-(-pairs // rows),)](
            both,
            routed.ends[-1:],
            out,
            width,
            ROWS=rows,
            BLOCK=_power(width),
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
        tokens, top_k = routed.position.shape
        width = pairs.shape[1]
        total = pairs.new_empty((tokens, width)) if x is None else x
        normed = total if weight is None else torch.empty_like(total)
        self._kernels.combine[(tokens,)](
            total,
            pairs,
            routed.position,
            routed.scores,
            total if weight is None else weight,
            total,
            normed,
            width,
            eps,
            ADD=x is not None,
            NORM=weight is not None,
            TOP_K=top_k,
            BLOCK=_power(width),
            num_warps=self._warps,
        )
        return total, None if weight is None else normed


def _power(number: int) -> int:
    """Return the least power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()

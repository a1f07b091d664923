"""Means over the tokens of packed batches: router logits in, statistics of each example out."""

from typing import Any

import torch
from torch import Tensor

from selectmoe_core.tokens import PackedBatch
from selectmoe_router.reduction import Routing


class PackedMeans:
    """Receives a packed batch's logits layer by layer and keeps the means of each example."""

    def __init__(self, batch: PackedBatch, routing: Routing, *, features: bool) -> None:
        self._batch = batch
        self._routing = routing
        self._features = features
        self._kernels = _kernels(batch.ids.device)
        self._taken: list[Tensor] = []

    @property
    def kernel(self) -> str:
        """How the logits are reduced."""
        return "triton" if self._kernels else "torch"

    def take(self, _layer: int, logits: Tensor) -> None:
        """Reduce the logits ``[tokens, outputs]`` of one layer to ``[batch, width]``."""
        self._taken.append(self._launched(logits) if self._kernels else self._plain(logits))

    @property
    def values(self) -> Tensor:
        """The means of each layer, ``[layers, batch, width]``: see ``Routing.width``."""
        return torch.stack(self._taken)

    def _launched(self, logits: Tensor) -> Tensor:
        batch, routing = self._batch, self._routing
        width = routing.width(features=self._features)
        tokens, outputs = logits.shape
        values = torch.empty((tokens, width), dtype=torch.float32, device=logits.device)
        rows = 16
        self._kernels.of_tokens[(-(-tokens // rows),)](
            logits,
            batch.counted,
            values,
            tokens,
            routing.experts,
            outputs,
            **routing.offsets(features=self._features),
            TOP_K=routing.top_k,
            ROWS=rows,
            COLUMNS=_power(outputs),
            WIDTH=width,
            num_warps=4,
        )
        examples = len(batch.counts)
        means = torch.empty((examples, width), dtype=torch.float32, device=logits.device)
        columns = min(32, _power(width))
        self._kernels.of_examples[(examples, -(-width // columns))](
            values,
            batch.starts,
            batch.counts,
            means,
            WIDTH=width,
            ROWS=128,
            COLUMNS=columns,
            num_warps=4,
        )
        return means

    def _plain(self, logits: Tensor) -> Tensor:
        batch = self._batch
        values = self._routing.columns(logits, features=self._features)
        values = torch.where(batch.counted[:, None].bool(), values, 0).double()
        examples = len(batch.counts)
        token = torch.arange(len(logits), device=logits.device, dtype=batch.starts.dtype)
        owner = torch.searchsorted(batch.starts[1:], token, right=True)
        totals = values.new_zeros(examples, values.shape[1]).index_add_(0, owner, values)
        return totals / batch.counts[:, None]


def _kernels(device: torch.device) -> Any:  # noqa: ANN401
    """Return the Triton kernels if they can run, otherwise ``None``."""
    if device.type != "cuda":
        return None
    try:
        from selectmoe_router import kernels
    except ImportError:
        return None
    return kernels


def _power(number: int) -> int:
    """Return the least power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()

"""Batches without padding, and their means, for models that read packed sequences."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selectmoe_core.tokens import Joined
from selectmoe_router.measures import probabilities
from selectmoe_router.reduction import Routing


@dataclass(frozen=True)
class PackedBatch:
    """Examples in one sequence, on the device.

    Attributes:
        rows: their positions in the shard, int64 ``[batch]``.
        ids: token ids, int64 ``[tokens]``.
        positions: each token's place in its example, int32 ``[tokens]``.
        starts: first token of each example and, last, ``tokens``: int32 ``[batch + 1]``.
        counted: which tokens count, uint8 ``[tokens]``.
        counts: how many of an example count, fp32 ``[batch]``.
        longest: tokens of the longest example.
    """

    rows: np.ndarray
    ids: Tensor
    positions: Tensor
    starts: Tensor
    counted: Tensor
    counts: Tensor
    longest: int

    def each(self, change: Callable[[Tensor], Tensor]) -> "PackedBatch":
        """Return the batch with every tensor changed, e.g. moved."""
        return replace(
            self,
            ids=change(self.ids),
            positions=change(self.positions),
            starts=change(self.starts),
            counted=change(self.counted),
            counts=change(self.counts),
        )


def even(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut examples into batches of about equal size, in order.

    Args:
        lengths: tokens of each example, at least 1, ``[examples]``.
        budget: tokens of a batch; an example across the border may exceed it.

    Returns:
        The rows of each batch.
    """
    total = int(lengths.sum())
    if not total:
        return []
    middles = np.cumsum(lengths) - lengths / 2
    batch = (middles * -(-total // budget) / total).astype(np.int64)
    return np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(batch)) + 1)


def packed(rows: np.ndarray, tokens: Joined, counted: np.ndarray) -> PackedBatch:
    """Return some examples as one batch in host memory.

    Args:
        rows: places in ``tokens``, each with at least one token, ``[batch]``.
        tokens: the tokens of all examples.
        counted: which of all tokens count, bool ``[tokens]``.
    """
    at, lengths = tokens.places(rows), tokens.lengths[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.arange(starts[-1], dtype=np.int32) - np.repeat(starts[:-1], lengths)
    counts = np.add.reduceat(counted[at].astype(np.int64), starts[:-1]).astype(np.float32)
    return PackedBatch(
        rows,
        ids=torch.from_numpy(tokens.ids[at].astype(np.int64)),
        positions=torch.from_numpy(positions),
        starts=torch.from_numpy(starts),
        counted=torch.from_numpy(counted[at].astype(np.uint8)),
        counts=torch.from_numpy(counts),
        longest=int(lengths.max()),
    )


def moved(batch: PackedBatch, device: str) -> PackedBatch:
    """Return the batch on a device; a copy to a GPU may still be running."""
    if not device.startswith("cuda"):
        return batch
    # The allocator keeps page-locked memory until the copy is done.
    return batch.each(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))


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
        batch, routing = self._batch, self._routing
        probs = probabilities(logits)
        parts = list(routing.of_tokens(logits, probs).values())
        values = torch.stack(parts, dim=1)
        values = torch.cat([values, probs], dim=1) if self._features else values
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

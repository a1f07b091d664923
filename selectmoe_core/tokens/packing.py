"""Batches without padding, for models that read several examples as one sequence."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from selectmoe_core.tokens.encoding import Joined


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

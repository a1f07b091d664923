"""Cutting many sequences into padded batches under a budget of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences of tokens, padded on the right.

    Attributes:
        rows: their positions among all sequences, int64 ``[batch]``.
        ids: token ids ``[batch, length]``.
        mask: which tokens count, bool ``[batch, length]``.
    """

    rows: np.ndarray
    ids: Tensor
    mask: Tensor


def within_budget(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, the longest sequences first.

    Args:
        lengths: tokens of each sequence, at least 1, ``[sequences]``.
        budget: tokens of a batch, including padding; a longer sequence is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, budget // int(lengths[order[start]]))
        yield order[start:stop]
        start = stop


def padded(
    rows: np.ndarray, ids: Sequence[np.ndarray], masks: Sequence[np.ndarray], device: str
) -> Batch:
    """Return the given rows as one batch on a device; a copy to a GPU may still be running.

    The padding is token 0 and never counts.
    """
    shape = len(rows), max(len(ids[row]) for row in rows)
    all_ids, all_masks = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    for place, row in enumerate(rows):
        all_ids[place, : len(ids[row])] = ids[row]
        all_masks[place, : len(ids[row])] = masks[row]
    arrays = [torch.from_numpy(array) for array in (all_ids, all_masks)]
    if device.startswith("cuda"):
        # The allocator keeps page-locked memory until the copy is done.
        arrays = [array.pin_memory().to(device, non_blocking=True) for array in arrays]
    return Batch(rows, *arrays)

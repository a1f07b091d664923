"""Similarities of the pool's rows and the target examples, block by block."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selectmoe_core.data import Vectors

NOTHING = -2.0
"""The similarity of a row without a vector: below every cosine."""


class Similarities(Protocol):
    """Similarities of all rows to all targets; the whole matrix is never in memory."""

    @property
    def rows(self) -> int:
        """Rows of the pool."""
        ...

    @property
    def empty(self) -> np.ndarray:
        """Which targets have nothing to compare with, bool ``[targets]``."""
        ...

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row and fp32 ``[rows, targets]``; ``NOTHING`` for a row without any."""
        ...

    def some(self, rows: np.ndarray) -> Tensor:
        """Return the similarities of some rows, fp32 ``[rows, targets]``."""
        ...


class Cosines:
    """Cosines of vectors.

    Args:
        vectors: the pool's.
        targets: the targets'.
        device: where they are computed.
        block: rows at once.
    """

    def __init__(self, vectors: Vectors, targets: Vectors, device: str, block: int) -> None:
        self._vectors = vectors
        self._device = device
        self._block = block
        unit, there = self._unit(targets.take(np.arange(len(targets))))
        self._targets = unit.T.contiguous()
        self.empty = ~there.cpu().numpy()
        self.rows = len(vectors)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the cosines block by block."""
        for first, block in self._vectors.blocks(self._block):
            yield first, self._cosines(block)

    def some(self, rows: np.ndarray) -> Tensor:
        """Return the cosines of some rows."""
        return self._cosines(self._vectors.take(rows))

    @torch.inference_mode()
    def _cosines(self, block: np.ndarray) -> Tensor:
        unit, there = self._unit(block)
        cosines = unit @ self._targets
        return torch.where(there[:, None], cosines, NOTHING)

    @torch.inference_mode()
    def _unit(self, block: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return vectors of length 1, fp32, and which were not zeros."""
        values = torch.tensor(block).to(self._device).float()
        norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        return values / norms.clamp_min(torch.finfo(torch.float32).tiny), norms[:, 0] > 0

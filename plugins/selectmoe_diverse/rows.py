"""Vectors read block by block, by direction: the core's, or an array's in a test."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from selectmoe_core import ScoreTable
from selectmoe_core.data import hash_ids


class Rows(Protocol):
    """What these selectors use of vectors."""

    @property
    def width(self) -> int:
        """The length of a vector."""

    def __len__(self) -> int: ...
    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row of each block and its vectors, at most so many rows."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, in their order."""
        ...


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1, fp32 ``[rows, width]``; a vector of zeros stays zero."""
    whole = vectors.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", whole, whole))
    whole /= np.where(length > 0, length, 1)[:, None]
    return whole


def drawn(scores: ScoreTable, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return ``count`` of some rows, drawn by the hash of their ids, in the order of the ids.

    The order of the rows in the table makes no difference.

    Args:
        scores: the table, for ids.
        rows: sorted positions.
        count: how many; all rows if there are no more.
        seed: of the draw.
    """
    words = scores.ids(rows)
    chosen = np.arange(len(rows))
    if count < len(rows):
        chosen = np.argpartition(hash_ids(words, seed), count - 1)[:count]
    own = words[chosen]
    return np.asarray(rows[chosen[np.lexsort((own[:, 1], own[:, 0]))]])

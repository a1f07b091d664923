"""Shards as batches: packed for models that read packed sequences, padded for all others."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from selectmoe_core import Job, ModelError, ModelRef, Shard
from selectmoe_core.models import Batch, OnItsWay, padded, within_budget
from selectmoe_core.tokens import Encoded, Joined, PackedBatch, even, moved, packed


class BatchReader(Protocol):
    """Makes the vectors of a batch on the device, fp32 ``[batch, width]``."""

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        ...

    @property
    def packs(self) -> bool:
        """Whether it reads packed batches."""
        ...

    def counted(self, tokens: Joined) -> np.ndarray:
        """Return which tokens count, bool ``[tokens]``; an example without any gets zeros."""
        ...

    def read_packed(self, batch: PackedBatch) -> Tensor:
        """Read a batch without padding."""
        ...

    def read_padded(self, batch: Batch) -> Tensor:
        """Read a padded batch."""
        ...


def model_of(job: Job, embedder: str) -> tuple[Any, ModelRef, Any]:
    """Load the stage's model; return it with its reference and its tokenizer.

    Raises:
        ModelError: the stage has no model.
    """
    ref = job.inputs.model
    if ref is None:
        raise ModelError(f"the embedder {embedder} has no model")
    model = job.models.load(ref, dtype=job.dtype, device=job.device)
    return model, ref, job.models.tokenizer(ref)


class ShardReader:
    """A shard embedder over a reader of batches."""

    def __init__(self, job: Job, tokenizer: Any, reader: BatchReader, batch_tokens: int) -> None:  # noqa: ANN401
        self._job = job
        self._tokenizer = tokenizer
        self._reader = reader
        self._batch_tokens = batch_tokens

    def embed(self, shard: Shard) -> np.ndarray:
        """Return the vectors of a shard."""
        return self.begin(shard)()

    def begin(self, shard: Shard) -> Callable[[], np.ndarray]:
        """Send a shard's batches to the device; return a function that waits for the vectors."""
        encoded: Encoded = self._job.encoded(self._tokenizer)
        tokens = encoded.joined(shard.rows)
        mask = self._reader.counted(tokens)
        rows = np.flatnonzero(tokens.sums(mask))
        read = self._packed if self._reader.packs else self._padded
        return partial(self._gathered, len(shard.rows), list(read(tokens, mask, rows)))

    def _gathered(self, examples: int, made: list[tuple[np.ndarray, OnItsWay]]) -> np.ndarray:
        vectors = np.zeros((examples, self._reader.width), dtype=np.float32)
        for rows, some in made:
            vectors[rows] = some.numpy()
        return vectors

    def _packed(
        self, tokens: Joined, mask: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, OnItsWay]]:
        for places in even(tokens.lengths[rows], self._batch_tokens):
            batch = moved(packed(rows[places], tokens, mask), self._job.device)
            yield batch.rows, OnItsWay(self._reader.read_packed(batch))

    def _padded(
        self, tokens: Joined, mask: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, OnItsWay]]:
        ids, masks = (np.split(whole, tokens.starts[1:-1]) for whole in (tokens.ids, mask))
        for places in within_budget(tokens.lengths[rows], self._batch_tokens):
            batch = padded(rows[places], ids, masks, self._job.device)
            yield batch.rows, OnItsWay(self._reader.read_padded(batch))

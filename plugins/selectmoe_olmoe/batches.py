"""Encoded examples as batches: grouped by length, padded on the right to the batch's longest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from selectmoe_core.chat import EncodedExample
from selectmoe_core.encoding import Encoded
from selectmoe_core.errors import DataError
from selectmoe_core.examples import Part

MEGABATCH = 50
"""Batches that are sorted by length together: little padding, and still a random order."""


@dataclass(frozen=True)
class Row:
    """Token ids ``[length]``, the loss weight of each as a target, whether it is of an answer."""

    ids: np.ndarray
    weights: np.ndarray
    answer: np.ndarray


class TrainingRows(Dataset[Row]):
    """The encoded examples in which at least one token counts.

    Attributes:
        rows: Their positions in ``encoded``, in its order.
        lengths: Their numbers of tokens.
    """

    def __init__(self, encoded: Encoded) -> None:
        self.encoded = encoded
        self.per_example = encoded.chat.config.average == "example"
        rows = [row for row in range(len(encoded)) if self._counts(row).any()]
        if not rows:
            raise DataError(
                f"in none of the {len(encoded)} examples does a token count for the loss",
                hint="raise [chat] max_length, or set loss_on = 'everything'",
            )
        self.rows = np.array(rows)
        self.lengths = encoded.lengths[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Row:
        row = int(self.rows[item])
        weights = self._counts(row).astype(np.float32)
        if self.per_example:
            weights /= weights.sum()
        encoded = self.encoded[row]
        return Row(np.asarray(encoded.ids), weights, answer_tokens(encoded))

    def sampler(self, batch_size: int, seed: int) -> "LengthGroupedSampler":
        """Return the order of training."""
        return LengthGroupedSampler(self.lengths, batch_size, seed)

    def _counts(self, row: int) -> np.ndarray:
        counts = self.encoded.chat.counts(self.encoded[row].parts).copy()
        counts[:1] = False  # nothing predicts the first token
        return counts


def answer_tokens(encoded: EncodedExample) -> np.ndarray:
    """Return which tokens are the assistant's, bool ``[length]``."""
    return np.asarray(encoded.parts) == Part.RESPONSE


class LengthGroupedSampler(Sampler[int]):
    """A random order per epoch in which the examples of a batch are of similar length.

    It depends on seed and epoch alone, so a resumed run sees what an uninterrupted one does.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        size = self.batch_size * MEGABATCH
        for start in range(0, len(order), size):
            part = order[start : start + size]
            order[start : start + size] = part[np.argsort(-self.lengths[part], kind="stable")]
        full = len(order) // self.batch_size * self.batch_size
        batches = order[:full].reshape(-1, self.batch_size)
        # An incomplete batch stays last, or it would shift the borders of those after it.
        yield from batches[random.permutation(len(batches))].reshape(-1).tolist()
        yield from order[full:].tolist()


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``loss_weights``, all ``[batch, longest]``.

    The ids behind a row's end are zero and mean nothing: causal attention never lets a real token
    see them, and neither mask nor weights count them.
    """
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = torch.from_numpy(row.ids.astype(np.int64))
        mask[number, :length] = 1
        weights[number, :length] = torch.from_numpy(row.weights)
    return {"input_ids": ids, "attention_mask": mask, "loss_weights": weights}

"""Encoded examples as batches: grouped by length, padded on the right to the batch's longest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from selectmoe_core import RecipeError
from selectmoe_core.data import Part
from selectmoe_core.tokens import Encoded, EncodedExample, answer_ends
from selectmoe_core.training import CountedRows

ContrastTokens = Literal["end", "response"]
NOTHING = -1
"""Stands in an order for no example: it fills up the last batch that processes share out."""
MEGABATCH = 50
"""Batches that are sorted by length together: little padding, and still a random order."""


@dataclass(frozen=True)
class Row:
    """Token ids ``[length]``, each one's loss weight as a target, and if the contrast counts it."""

    ids: np.ndarray
    weights: np.ndarray
    answer: np.ndarray

    @classmethod
    def nothing(cls) -> "Row":
        """Return a row that no term of the loss sees: a forward pass needs a token."""
        none = np.zeros(1)
        return cls(none.astype(np.int32), none.astype(np.float32), none.astype(bool))

    @property
    def is_nothing(self) -> bool:
        """Whether this is no example; one has two tokens, or there would be none to predict."""
        return len(self.ids) == 1


@dataclass(frozen=True)
class Split:
    """How the examples of an optimizer step are shared out.

    Attributes:
        batch: examples of a micro-batch in one process.
        accumulation: micro-batches of a step in one process.
        processes: processes that train together.
        parts: processes that share a micro-batch; the others have micro-batches of their own.
    """

    batch: int
    accumulation: int
    processes: int = 1
    parts: int = 1

    @property
    def together(self) -> int:
        """Examples that all processes take at once."""
        return self.batch * self.processes


def split_step(batch_size: int, accumulation: int, processes: int) -> Split:
    """Share a step out: whole micro-batches where they can be dealt, else parts of each.

    Either way a step has the same examples in the same micro-batches, whatever the number of
    processes; so has every term of the loss, also the balance, which is a statistic of its batch.

    Raises:
        RecipeError: neither can be divided.
    """
    if accumulation % processes == 0:
        return Split(batch_size, accumulation // processes, processes)
    if batch_size % processes == 0:
        return Split(batch_size // processes, accumulation, processes, parts=processes)
    raise RecipeError(
        f"[warmup] neither batch_size = {batch_size} nor gradient_accumulation = {accumulation} "
        f"can be divided among {processes} processes",
        hint=f"use a multiple of {processes} for one of them, or another number of processes",
    )


class TrainingRows(CountedRows, Dataset[Row]):
    """The encoded examples in which at least one token counts, by their numbers."""

    def __init__(self, encoded: Encoded, contrast: ContrastTokens = "response") -> None:
        super().__init__(encoded)
        self.contrast = contrast

    def __getitem__(self, item: int) -> Row:
        if item == NOTHING:
            return Row.nothing()
        row = int(self.rows[item])
        encoded = self.encoded[row]
        tokens = contrasted(encoded, self.contrast)
        return Row(np.asarray(encoded.ids), self.loss_weights(row), tokens)

    def sampler(self, batch_size: int, seed: int, together: int = 1) -> "LengthGroupedSampler":
        """Return the order of training."""
        return LengthGroupedSampler(self.lengths, batch_size, seed, together)


def contrasted(encoded: EncodedExample, tokens: ContrastTokens) -> np.ndarray:
    """Return which tokens the contrast looks at, bool ``[length]``."""
    if tokens == "end":
        return answer_ends(encoded.parts)
    return np.asarray(encoded.parts) == Part.RESPONSE


class LengthGroupedSampler(Sampler[int]):
    """A random order per epoch in which the examples of a batch are of similar length.

    It depends on seed and epoch alone, so a resumed run sees what an uninterrupted one does.

    Args:
        lengths: tokens of each example.
        batch_size: examples of a batch.
        seed: of the order.
        together: examples that processes take at once; ``NOTHING`` fills up the last.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, together: int = 1) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.together = together
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.together) * self.together

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
        yield from [NOTHING] * (len(self) - len(order))


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``loss_weights``, all ``[batch, longest]``.

    The ids behind a row's end are zero and mean nothing: causal attention never lets a real token
    see them, and neither mask nor weights count them. Nor do they count ``NOTHING``.
    """
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = torch.from_numpy(row.ids.astype(np.int64))
        mask[number, :length] = 0 if row.is_nothing else 1
        weights[number, :length] = torch.from_numpy(row.weights)
    return {"input_ids": ids, "attention_mask": mask, "loss_weights": weights}

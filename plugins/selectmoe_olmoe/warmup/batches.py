"""Batches of encoded examples: divided among processes, grouped by length and padded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from selectmoe_core import RecipeError
from selectmoe_core.data import Part
from selectmoe_core.tokens import Encoded, EncodedExample, answer_ends
from selectmoe_core.training import CountedRows

Batch = dict[str, Any]
"""A micro-batch or a pass: tensors by name."""
Join = Callable[[Sequence[Batch]], list[Batch]]
"""Joins micro-batches into passes."""
ContrastTokens = Literal["end", "response"]
NOTHING = -1
"""Means "no example" in an order: it fills the last step that processes share."""
MEGABATCH = 50
"""Batches that are sorted by length together: little padding, and still a random order."""


@dataclass(frozen=True)
class Row:
    """Token ids ``[length]``, their loss weights as targets, and whether the contrast uses them."""

    ids: np.ndarray
    weights: np.ndarray
    answer: np.ndarray

    @classmethod
    def nothing(cls) -> "Row":
        """Return a row that counts in no term of the loss; a forward pass needs a token."""
        none = np.zeros(1)
        return cls(none.astype(np.int32), none.astype(np.float32), none.astype(bool))

    @property
    def is_nothing(self) -> bool:
        """Whether this is no example; an example has at least two tokens."""
        return len(self.ids) == 1


@dataclass(frozen=True)
class Split:
    """How the examples of an optimizer step are divided among processes.

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
    def share(self) -> int:
        """Examples of a step in one process."""
        return self.batch * self.accumulation


def split_step(batch_size: int, micro_batch: int, processes: int) -> Split:
    """Divide a step: each process gets whole micro-batches if possible, otherwise parts of each.

    A step has the same examples in the same micro-batches for any number of processes. So every
    term of the loss is the same, also the balance, which is a statistic of its micro-batch.

    Raises:
        RecipeError: neither the micro-batches nor their examples can be divided.
    """
    accumulation = batch_size // micro_batch
    if accumulation % processes == 0:
        return Split(micro_batch, accumulation // processes, processes)
    if micro_batch % processes == 0:
        return Split(micro_batch // processes, accumulation, processes, parts=processes)
    raise RecipeError(
        f"[warmup] neither the {accumulation} micro-batches of a step nor the {micro_batch} "
        f"examples of each can be divided among {processes} processes",
        hint=f"make batch_size or micro_batch_size a multiple of {processes}, "
        "or use another number of processes",
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

    def counted(self, examples: int) -> tuple["TrainingRows", int]:
        """Return the examples that are trained on, and of how many they are."""
        return self, examples

    def sampler(self, split: Split, seed: int) -> "LengthGroupedSampler":
        """Return the order of training."""
        return LengthGroupedSampler(self.lengths, split, seed)


def contrasted(encoded: EncodedExample, tokens: ContrastTokens) -> np.ndarray:
    """Return the tokens that the contrast uses, bool ``[length]``."""
    if tokens == "end":
        return answer_ends(encoded.parts)
    return np.asarray(encoded.parts) == Part.RESPONSE


class LengthGroupedSampler(Sampler[int]):
    """A random order per epoch in which the examples of a micro-batch are of similar length.

    The micro-batches of a step depend on seed and epoch alone, so a resumed run sees what an
    uninterrupted one does. Several processes take ``split.share`` examples each in turn.

    Args:
        lengths: tokens of each example.
        split: how the examples of a step are shared out.
        seed: of the order.
    """

    def __init__(self, lengths: np.ndarray, split: Split, seed: int) -> None:
        self.lengths = lengths
        self.split = split
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.split.processes == 1:
            return len(self.lengths)
        step = self.split.share * self.split.processes
        return -(-len(self.lengths) // step) * step

    def __iter__(self) -> Iterator[int]:
        order = self._grouped()
        split = self.split
        if split.processes == 1:
            yield from order.tolist()
            return
        filled = np.full(len(self), NOTHING)
        filled[: len(order)] = order
        # Processes get micro-batches, or parts of them, in turn.
        steps = filled.reshape(-1, split.accumulation, split.processes, split.batch)
        yield from steps.transpose(0, 2, 1, 3).reshape(-1).tolist()

    def _grouped(self) -> np.ndarray:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        micro = self.split.batch * self.split.parts
        size = micro * MEGABATCH
        for start in range(0, len(order), size):
            part = order[start : start + size]
            order[start : start + size] = part[np.argsort(-self.lengths[part], kind="stable")]
        full = len(order) // micro * micro
        batches = order[:full].reshape(-1, micro)
        # An incomplete batch stays last; elsewhere it would shift the borders of later ones.
        shuffled = batches[random.permutation(len(batches))].reshape(-1)
        return np.concatenate([shuffled, order[full:]])


class StepCollator:
    """Makes a batch of a process's share of a step: its passes and their totals.

    Args:
        batch: examples of a micro-batch in this process.
        collate: makes a micro-batch of examples.
        counts: returns a micro-batch's totals, fp32.
        join: makes passes of the micro-batches; by default each is one.
    """

    def __init__(
        self,
        batch: int,
        collate: Callable[[Sequence[Any]], Batch],
        counts: Callable[[Batch], Tensor],
        join: Join = list,
    ) -> None:
        self.batch = batch
        self.collate = collate
        self.counts = counts
        self.join = join

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return ``passes`` and ``totals``, as ``StepTrainer`` takes them."""
        starts = range(0, len(rows), self.batch)
        passes = self.join([self.collate(rows[at : at + self.batch]) for at in starts])
        return {"passes": passes, "totals": torch.stack([*map(self.counts, passes)]).sum(dim=0)}


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``loss_weights``, all ``[batch, longest]``.

    The ids after a row's end are zero and have no effect: with causal attention no real token
    attends to them, and neither mask nor weights count them. ``NOTHING`` is not counted either.
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


def counts(batch: Batch) -> Tensor:
    """Return the tokens and the loss weights of a padded batch, fp32 ``[2]``."""
    return torch.stack([batch["attention_mask"].sum().float(), batch["loss_weights"].sum()])

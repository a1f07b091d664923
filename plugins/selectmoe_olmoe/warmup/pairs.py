"""Pairs of a clean example and its corrupted copy, which is made again for every epoch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selectmoe_core import Damage, Example, ExampleSource, Job
from selectmoe_core.data import Part, plant_some, random_of
from selectmoe_core.tokens import EncodedExample, Tokenizer, encode
from selectmoe_olmoe.warmup.batches import (
    NOTHING,
    Batch,
    ContrastTokens,
    LengthGroupedSampler,
    Row,
    Split,
    TrainingRows,
    collate,
    contrasted,
    counts,
)

NEIGHBOURS = 4096
"""Number of examples in memory at once; copies take text only from these."""


@dataclass(frozen=True)
class Pair:
    """An example and its corrupted copy; an example without a copy has no part in the contrast.

    Attributes:
        clean: the example.
        copy: its corrupted copy, or a worse answer.
        places: which tokens of each are around the damaged place, bool ``[length]`` each.
    """

    clean: Row
    copy: Row | None
    places: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class CopyMaker:
    """How corrupted copies are made: the kinds, their rates, and the seed."""

    damages: Sequence[Damage]
    rates: Mapping[str, float]
    seed: int

    def copies(self, examples: Iterable[Example], epoch: int) -> Iterator[tuple[Example, str]]:
        """Yield each example's copy and its kind, or the example and ``""`` if none can be made.

        The result depends only on the examples and their order, the seed and the epoch.
        """
        seed = random_of(self.seed, "epoch", epoch).getrandbits(63)
        rest = iter(examples)
        while some := list(islice(rest, NEIGHBOURS)):
            for example in some:
                planted = plant_some(example, self.damages, self.rates, some, seed)
                yield (planted.example, planted.kind) if planted else (example, "")


class PairRows(Dataset[Pair]):
    """The training rows, each with its corrupted copy for the current epoch.

    A copy is left out if it equals its original after both are truncated, or if the contrast has
    no token to compare. With a ``window`` pairs know their damaged places.

    Attributes:
        kinds: the kind of damage in each row's copy of the current epoch, or ``""``.
        lengths: tokens of the longer of the two.
    """

    def __init__(
        self,
        rows: TrainingRows,
        examples: ExampleSource,
        maker: CopyMaker,
        tokenizer: Tokenizer,
        job: Job,
        window: int | None = None,
    ) -> None:
        self.rows = rows
        self.window = window
        self.examples = examples
        self.maker = maker
        self.tokenizer = tokenizer
        self.job = job
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the copies of an epoch."""
        kinds: list[str] = []

        def copies() -> Iterator[Example]:
            for copy, kind in self.maker.copies(self.examples, epoch):
                kinds.append(kind)
                yield copy

        # Each process writes its own, because it may be in another epoch than the others.
        folder = self.job.scratch / f"copies-{epoch}-{self.job.world.rank}"
        encoded = encode(copies(), folder, self.job.chat, self.tokenizer)
        self.copies = encoded.take(self.rows.rows)
        self.kinds = [
            kinds[row] if self._is_pair(item) else "" for item, row in enumerate(self.rows.rows)
        ]
        longer = np.maximum(self.rows.lengths, self.copies.lengths)
        self.lengths = np.where(np.array(self.kinds) == "", self.rows.lengths, longer)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Pair:
        if item == NOTHING:
            return Pair(Row.nothing(), None)
        if not self.kinds[item]:
            return Pair(self.rows[item], None)
        clean, copy = self.rows.encoded[int(self.rows.rows[item])], self.copies[item]
        places = damaged_places(clean, copy, self.window)
        return Pair(self.rows[item], worse_row(copy, self.rows.contrast), places)

    def counted(self, examples: int) -> tuple[TrainingRows, int]:
        """Return the examples that are trained on, and of how many they are."""
        return self.rows, examples

    def sampler(self, split: Split, seed: int) -> "PairSampler":
        """Return the order of training; a new epoch makes new copies."""
        return PairSampler(self, split, seed)

    def _is_pair(self, item: int) -> bool:
        clean, copy = self.rows.encoded[int(self.rows.rows[item])], self.copies[item]
        return comparable(clean, copy, self.rows.contrast)


def comparable(better: EncodedExample, worse: EncodedExample, contrast: ContrastTokens) -> bool:
    """Return whether two examples differ after truncation, and both have a token to compare."""
    differ = not np.array_equal(better.ids, worse.ids)
    return differ and all(contrasted(each, contrast).any() for each in (better, worse))


def damaged_places(
    better: EncodedExample, worse: EncodedExample, window: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the answers' tokens around the place in which two examples differ, bool ``[length]``.

    The place lies between the tokens that both begin with and those that both end with; the
    ``window`` tokens behind it attend to it and belong to it.

    Returns:
        The tokens of each; ``None`` without a window, or if one of them has no such token.
    """
    if window is None:
        return None
    begin = _alike(better.ids, worse.ids)
    end = _alike(better.ids[begin:][::-1], worse.ids[begin:][::-1])
    masks = []
    for encoded in (better, worse):
        mask = np.zeros(len(encoded.ids), dtype=bool)
        mask[begin : len(mask) - end + window] = True
        masks.append(mask & (np.asarray(encoded.parts) == Part.RESPONSE))
    return (masks[0], masks[1]) if all(mask.any() for mask in masks) else None


def _alike(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many tokens two sequences begin with in common."""
    least = min(len(one), len(other))
    differ = np.flatnonzero(one[:least] != other[:least])
    return int(differ[0]) if len(differ) else least


def worse_row(encoded: EncodedExample, contrast: ContrastTokens) -> Row:
    """Return the row of a corrupted copy or of a rejected answer."""
    # The model must not learn to imitate damaged answers.
    no_loss = np.zeros(len(encoded.ids), dtype=np.float32)
    return Row(np.asarray(encoded.ids), no_loss, contrasted(encoded, contrast))


class EpochPairs(Protocol):
    """Pairs that are other ones in every epoch.

    Attributes:
        lengths: tokens of the longer of the two of each pair.
    """

    lengths: np.ndarray

    def set_epoch(self, epoch: int) -> None:
        """Make the pairs of an epoch."""
        ...


class PairSampler(LengthGroupedSampler):
    """Micro-batches of pairs of similar length; a new epoch first makes its pairs."""

    def __init__(self, pairs: EpochPairs, split: Split, seed: int) -> None:
        super().__init__(pairs.lengths, split, seed)
        self.pairs = pairs

    def set_epoch(self, epoch: int) -> None:
        """Make the pairs of the epoch and choose its order."""
        if epoch != self.epoch:
            self.pairs.set_epoch(epoch)
            self.lengths = self.pairs.lengths
        super().set_epoch(epoch)


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """Return a batch: the clean examples, followed by the copies of those that have one.

    In addition to what ``collate`` returns: ``answers``, bool ``[rows, longest]``, true for the
    tokens that the contrast counts; ``originals``, ``[copies]``, the row of each copy's original;
    ``places``, bool ``[rows, longest]``, true around damaged places; ``placed``, the numbers of the
    copies that have one.
    """
    rows = [pair.clean for pair in pairs] + [pair.copy for pair in pairs if pair.copy is not None]
    batch = collate(rows)
    answers = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for number, row in enumerate(rows):
        answers[number, : len(row.answer)] = torch.from_numpy(row.answer)
    originals = [place for place, pair in enumerate(pairs) if pair.copy is not None]
    places, placed = torch.zeros_like(answers), []
    for number, place in enumerate(originals):
        if (masks := pairs[place].places) is not None:
            placed.append(number)
            for at, mask in zip((place, len(pairs) + number), masks, strict=True):
                places[at, : len(mask)] = torch.from_numpy(mask)
    return {
        **batch,
        "answers": answers,
        "originals": torch.tensor(originals, dtype=torch.long),
        "places": places,
        "placed": torch.tensor(placed, dtype=torch.long),
    }


def clean_part(batch: Batch) -> Batch:
    """Return the part of a batch without the copies, which come last."""
    rows = len(batch["input_ids"]) - len(batch["originals"])
    names = ("input_ids", "attention_mask", "loss_weights")
    return {name: batch[name][:rows] for name in names}


def pair_counts(batch: Batch) -> Tensor:
    """Return the clean examples' tokens and loss weights, and the number of pairs, fp32 ``[3]``."""
    pairs = torch.tensor([float(len(batch["originals"]))])
    return torch.cat([counts(clean_part(batch)), pairs])

"""Preference pairs in the contrast: a rejected answer takes the place of a corrupted copy."""

import numpy as np
from torch.utils.data import Dataset

from selectmoe_core import DataError, Job
from selectmoe_core.data import PairTable
from selectmoe_core.tokens import Encoded, Tokenizer, encode
from selectmoe_olmoe.warmup.batches import NOTHING, ContrastTokens, Row, Split, TrainingRows
from selectmoe_olmoe.warmup.pairs import (
    Pair,
    PairRows,
    PairSampler,
    comparable,
    damaged_places,
    worse_row,
)


class PreferenceRows(Dataset[Pair]):
    """Pairs of a chosen and a rejected conversation.

    A pair is left out if both are equal after they are truncated, or if the contrast has no token
    to compare. With a ``window`` pairs know the places in which they differ.

    Attributes:
        rows: the chosen conversations in which a token counts.
        lengths: tokens of the longer of the two of each pair.
        given: how many pairs there were.

    Raises:
        DataError: no pair is left.
    """

    def __init__(
        self,
        table: PairTable,
        contrast: ContrastTokens,
        tokenizer: Tokenizer,
        job: Job,
        window: int | None = None,
    ) -> None:
        def encoded(name: str) -> Encoded:
            # Each process writes its own, as it does with corrupted copies.
            folder = job.scratch / f"{name}-{job.world.rank}"
            return encode(getattr(table, name)(), folder, job.chat, tokenizer)

        self.given = len(table)
        self.window = window
        self.rows = TrainingRows(encoded("chosen"), contrast)
        self.rejected = encoded("rejected")
        self._items = [item for item in range(len(self.rows)) if self._is_pair(item)]
        if not self._items:
            raise DataError(
                f"[warmup.pairs] none of the {self.given} pairs can be compared: both answers are "
                "equal, or cut away, after truncation",
                hint="raise [chat] max_length",
            )
        worse = self.rejected.lengths[self.rows.rows]
        self.lengths = np.maximum(self.rows.lengths, worse)[self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> Pair:
        item = self._items[place]
        row = int(self.rows.rows[item])
        better, worse = self.rows.encoded[row], self.rejected[row]
        places = damaged_places(better, worse, self.window)
        return Pair(self.rows[item], worse_row(worse, self.rows.contrast), places)

    def _is_pair(self, item: int) -> bool:
        row = int(self.rows.rows[item])
        return comparable(self.rows.encoded[row], self.rejected[row], self.rows.contrast)


class MixedPairs(Dataset[Pair]):
    """Examples with their corrupted copies, followed by the preference pairs of the epoch.

    Over the epochs all preference pairs are used equally often.

    Args:
        made: examples and their corrupted copies; ``None`` for preference pairs alone.
        real: the preference pairs.
        share: the share of ``real`` in an epoch; ``None`` uses each once.
        seed: of the order in which they are drawn.

    Attributes:
        lengths: tokens of the longer of the two of each pair.
        drawn: the preference pairs of the epoch, int64.
    """

    def __init__(
        self, made: PairRows | None, real: PreferenceRows, share: float | None, seed: int
    ) -> None:
        self.made = made
        self.real = real
        self.seed = seed
        self._first = len(made) if made is not None else 0
        self._count = len(real)
        if made is not None and share is not None:
            self._count = max(1, round(len(made) * share / (1 - share)))
        self._draw(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the copies of an epoch, and draw its preference pairs."""
        if self.made is not None:
            self.made.set_epoch(epoch)
        self._draw(epoch)

    def _draw(self, epoch: int) -> None:
        self.drawn = drawn(len(self.real), self._count, epoch, self.seed)
        real = self.real.lengths[self.drawn]
        self.lengths = real if self.made is None else np.append(self.made.lengths, real)

    def __len__(self) -> int:
        return self._first + self._count

    def __getitem__(self, item: int) -> Pair:
        if item == NOTHING:
            return Pair(Row.nothing(), None)
        if self.made is not None and item < self._first:
            return self.made[item]
        return self.real[int(self.drawn[item - self._first])]

    def counted(self, examples: int) -> tuple[TrainingRows, int]:
        """Return the examples that are trained on, and of how many they are."""
        if self.made is None:
            return self.real.rows, self.real.given
        return self.made.rows, examples

    def sampler(self, split: Split, seed: int) -> PairSampler:
        """Return the order of training; a new epoch makes new copies."""
        return PairSampler(self, split, seed)


def drawn(pairs: int, count: int, epoch: int, seed: int) -> np.ndarray:
    """Return the pairs of an epoch: the next ``count`` of an endless row of permutations."""
    places = np.arange(epoch * count, (epoch + 1) * count)
    found = np.empty(count, dtype=np.int64)
    for number in range(int(places[0]) // pairs, int(places[-1]) // pairs + 1):
        order = np.random.default_rng((seed, number)).permutation(pairs)
        mine = places // pairs == number
        found[mine] = order[places[mine] % pairs]
    return found

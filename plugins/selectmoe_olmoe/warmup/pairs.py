"""Pairs of an example and its damaged twin, made anew for every epoch, both in one batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selectmoe_core import Damage, Example, ExampleSource, Job
from selectmoe_core.data import plant_some, random_of
from selectmoe_core.tokens import Tokenizer, encode
from selectmoe_olmoe.warmup.batches import (
    NOTHING,
    LengthGroupedSampler,
    Row,
    TrainingRows,
    collate,
    contrasted,
)

NEIGHBOURS = 4096
"""Examples that borrow from one another: so many are in memory at once."""


@dataclass(frozen=True)
class Pair:
    """An example and its damaged twin; one without takes part in the language-model loss alone."""

    sound: Row
    twin: Row | None


@dataclass(frozen=True)
class TwinMaker:
    """How twins are made: of which kinds, how often each, by which seed."""

    damages: Sequence[Damage]
    rates: Mapping[str, float]
    seed: int

    def twins(self, examples: Iterable[Example], epoch: int) -> Iterator[tuple[Example, str]]:
        """Yield each example's twin and its kind; where none can be made, the example and ``""``.

        It depends on the examples and their order, on seed and epoch, and on nothing else.
        """
        seed = random_of(self.seed, "epoch", epoch).getrandbits(63)
        rest = iter(examples)
        while some := list(islice(rest, NEIGHBOURS)):
            for example in some:
                planted = plant_some(example, self.damages, self.rates, some, seed)
                yield (planted.example, planted.kind) if planted else (example, "")


class TwinRows(Dataset[Pair]):
    """The training rows, each beside its damaged twin of the current epoch.

    A twin that is no different once it is cut to the format's length, or that has no token left for
    the contrast to look at, is none.

    Attributes:
        kinds: the kind of each row's twin in the current epoch, or ``""``.
        lengths: tokens of the longer of the two.
    """

    def __init__(
        self,
        rows: TrainingRows,
        examples: ExampleSource,
        maker: TwinMaker,
        tokenizer: Tokenizer,
        job: Job,
    ) -> None:
        self.rows = rows
        self.examples = examples
        self.maker = maker
        self.tokenizer = tokenizer
        self.job = job
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Make the twins of an epoch."""
        kinds: list[str] = []

        def twins() -> Iterator[Example]:
            for twin, kind in self.maker.twins(self.examples, epoch):
                kinds.append(kind)
                yield twin

        # Each process writes its own: it may be at another epoch than its fellows.
        folder = self.job.scratch / f"twins-{epoch}-{self.job.world.rank}"
        encoded = encode(twins(), folder, self.job.chat, self.tokenizer)
        self.twins = encoded.take(self.rows.rows)
        self.kinds = [
            kinds[row] if self._is_pair(item) else "" for item, row in enumerate(self.rows.rows)
        ]
        longer = np.maximum(self.rows.lengths, self.twins.lengths)
        self.lengths = np.where(np.array(self.kinds) == "", self.rows.lengths, longer)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Pair:
        if item == NOTHING:
            return Pair(Row.nothing(), None)
        if not self.kinds[item]:
            return Pair(self.rows[item], None)
        encoded = self.twins[item]
        no_loss = np.zeros(len(encoded.ids), dtype=np.float32)  # nobody is to speak like a twin
        tokens = contrasted(encoded, self.rows.contrast)
        return Pair(self.rows[item], Row(np.asarray(encoded.ids), no_loss, tokens))

    def sampler(self, batch_size: int, seed: int, together: int = 1) -> "TwinSampler":
        """Return the order of training; a new epoch makes new twins."""
        return TwinSampler(self, batch_size, seed, together)

    def _is_pair(self, item: int) -> bool:
        sound, twin = self.rows.encoded[int(self.rows.rows[item])], self.twins[item]
        differ = not np.array_equal(sound.ids, twin.ids)
        return differ and all(contrasted(one, self.rows.contrast).any() for one in (sound, twin))


class TwinSampler(LengthGroupedSampler):
    """Batches of pairs of similar length; a new epoch first makes its twins."""

    def __init__(self, pairs: TwinRows, batch_size: int, seed: int, together: int = 1) -> None:
        super().__init__(pairs.lengths, batch_size, seed, together)
        self.pairs = pairs

    def set_epoch(self, epoch: int) -> None:
        """Make the twins of the epoch and choose its order."""
        if epoch != self.epoch:
            self.pairs.set_epoch(epoch)
            self.lengths = self.pairs.lengths
        super().set_epoch(epoch)


def collate_pairs(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """Return a batch: the sound examples, behind them the twins of those that have one.

    Beside what ``collate`` gives: ``answers``, bool ``[rows, longest]``, true for the tokens that
    the contrast counts; ``sound_of``, ``[twins]``, the row that each twin was made from.
    """
    rows = [pair.sound for pair in pairs] + [pair.twin for pair in pairs if pair.twin is not None]
    batch = collate(rows)
    answers = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for number, row in enumerate(rows):
        answers[number, : len(row.answer)] = torch.from_numpy(row.answer)
    places = [place for place, pair in enumerate(pairs) if pair.twin is not None]
    return {**batch, "answers": answers, "sound_of": torch.tensor(places, dtype=torch.long)}

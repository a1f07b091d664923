"""Scorers that look only at the text."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from selectmoe_basic.config import LengthConfig, RandomConfig
from selectmoe_core import Example, Job, Shard, ShardScores
from selectmoe_core.data import hash_ids

_OWN_STREAM = 0x5EED0FA5C0DE
"""Added to the seed, so that the numbers are independent of samples that the core draws with the
same hash."""


class LengthScorer:
    """Scores by the length of the answers; see ``LengthConfig``."""

    def __init__(self, config: LengthConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["LengthScorer"]:  # noqa: ARG002
        """Load nothing."""
        yield self

    def score(self, shard: Shard) -> ShardScores:
        """Return the length of each example's answers, negated if short answers are better."""
        length = np.array([self._length(example) for example in shard.examples], dtype=np.float64)
        return ShardScores(length if self.config.direction == "long" else -length)

    def _length(self, example: Example) -> int:
        turns = (turn for turn in example.messages if turn.role == "assistant" and turn.trained)
        answers = (turn.content for turn in turns)
        if self.config.unit == "words":
            return sum(len(answer.split()) for answer in answers)
        return sum(len(answer) for answer in answers)


class RandomScorer:
    """Scores by a hash of seed and id; see ``RandomConfig``."""

    def __init__(self, config: RandomConfig, seed: int | None = None) -> None:
        self.config = config
        self._seed = seed

    @contextmanager
    def open(self, job: Job) -> Iterator["RandomScorer"]:
        """Take the stage's seed."""
        yield RandomScorer(self.config, job.seed)

    def score(self, shard: Shard) -> ShardScores:
        """Return a number in [0, 1) for each example, multiples of 2^-53."""
        if self._seed is None:
            raise TypeError("open the scorer before scoring")
        text = bytes.fromhex("".join(example.id for example in shard.examples))
        words = np.frombuffer(text, dtype=">u8").astype(np.uint64).reshape(-1, 2)
        hashes = hash_ids(words, self._seed + _OWN_STREAM)
        return ShardScores((hashes >> np.uint64(11)) * 2.0**-53)

"""The check of embedders: it passes sound ones and names what is wrong with broken ones."""

from contextlib import contextmanager

import numpy as np
import pytest

from selectmoe_core import Component, Config, Need, execution_only
from selectmoe_core.testing import check_embedder


class Plain(Config):
    """Embed for a test."""

    batch: int = execution_only(8)
    """Examples at once."""


class Letters:
    """Counts letters."""

    def __init__(self, config):
        self.config = config

    @contextmanager
    def open(self, job, role):
        self.role = role
        yield self

    def embed(self, shard):
        texts = [example.response for example in shard.examples]
        return np.array(
            [[text.count(letter) for letter in "aeiou xyz"] for text in texts], dtype=float
        )


class Centred(Letters):
    def embed(self, shard):
        made = super().embed(shard)
        return made - made.mean(axis=0)


class ByChance(Letters):
    def embed(self, shard):
        return super().embed(shard) + np.random.default_rng().normal(size=(len(shard.rows), 9))


class Wider(Letters):
    def embed(self, shard):
        made = super().embed(shard)
        return np.hstack([made, made]) if self.role == "target" else made


class Equal(Letters):
    def embed(self, shard):
        return np.ones((len(shard.rows), 3))


class Zeros(Letters):
    def embed(self, shard):
        return np.zeros((len(shard.rows), 3))


class Batched(Letters):
    def embed(self, shard):
        return super().embed(shard) * self.config.batch


class Listed(Letters):
    def embed(self, shard):
        return super().embed(shard).tolist()


class Eager(Letters):
    def begin(self, shard):
        return lambda: super(Eager, self).embed(shard) + 1


class Nothing:
    def __init__(self, config):
        pass


def component(part):
    return Component("mine", Plain, part, needs=lambda _: frozenset({Need.POOL}))


def test_a_sound_embedder_passes():
    check_embedder(component(Letters))


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (Centred, "cut into shards of 7"),
        (ByChance, "run a second time"),
        (Wider, "vectors of pool and targets differ in width"),
        (Equal, "all vectors are equal"),
        (Zeros, "every vector is zeros"),
        (Batched, "with another 'batch'"),
        (Listed, "returned list, not a numpy array"),
        (Eager, "run a second time"),
        (Nothing, "it has no method open"),
    ],
)
def test_a_broken_one_is_named(part, says):
    with pytest.raises(AssertionError, match=says):
        check_embedder(component(part))


def test_a_model_must_be_given():
    needy = Component("mine", Plain, Letters, needs=lambda _: frozenset({Need.MODEL}))
    with pytest.raises(AssertionError, match="needs a model"):
        check_embedder(needy)

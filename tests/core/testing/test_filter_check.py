"""The check of filters: it passes sound ones and names what is wrong with broken ones."""

import numpy as np
import pytest

from selectmoe_core import Component, Config, Marks, Need
from selectmoe_core.testing import check_filter


class Plain(Config):
    """Mark rows for a test."""


class Long:
    """Leaves out long answers and groups the others by the length of their prompt."""

    def __init__(self, config):
        self.calls = 0

    def mark(self, pool, job):
        long = np.array([len(example.response) > 200 for example in pool.examples()])
        lengths = np.array([len(example.prompt) for example in pool.examples()])
        reasons = ["long" if own else None for own in long]
        return Marks(np.arange(len(pool)), reasons, np.where(long, -1, lengths))


class FirstRows(Long):
    def mark(self, pool, job):
        return Marks.left_out(np.arange(3), ["first"] * 3)


class ByChance(Long):
    def mark(self, pool, job):
        return Marks.left_out(np.random.default_rng().permutation(len(pool))[:9], ["drawn"] * 9)


class Outside(Long):
    def mark(self, pool, job):
        return Marks.left_out(np.array([len(pool)]), ["outside"])


class Rows(Long):
    def mark(self, pool, job):
        return np.arange(3)


class Nothing:
    def __init__(self, config):
        pass


def component(part):
    return Component("part", Plain, part, needs=lambda _: frozenset({Need.POOL}))


def test_a_sound_filter_passes():
    check_filter(component(Long))


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (FirstRows, "with the rows in another order, it marks other rows"),
        (ByChance, "run a second time, it marks other rows"),
        (Outside, "a row lies outside the pool"),
        (Rows, r"mark\(\) gave a ndarray, not Marks"),
        (Nothing, "mark"),
    ],
)
def test_broken_filters_are_caught(part, what):
    with pytest.raises(AssertionError, match=what):
        check_filter(component(part))

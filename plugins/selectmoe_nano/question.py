"""What a family of tasks produces, and the small draws that families share."""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple


class Question(NamedTuple):
    """One instruction with its only right answer."""

    instruction: str
    answer: str
    wrong: tuple[str, ...]
    """At least three distinct answers which look right and are not."""


Family = Callable[[Random], Question]
"""Draws one question; all randomness comes from the generator it is given."""


def near(rng: Random, value: int, steps: Sequence[int], low: int = 0) -> tuple[str, ...]:
    """Return four numbers which differ from ``value`` by a step up or down, none below ``low``."""
    candidates = [value + sign * step for step in steps for sign in (1, -1)]
    fitting = list(dict.fromkeys(n for n in candidates if n >= low and n != value))
    rng.shuffle(fitting)
    return tuple(str(n) for n in fitting[:4])


def others(rng: Random, choices: Sequence[str], *right: str, count: int = 4) -> tuple[str, ...]:
    """Return up to ``count`` of the ``choices``, in random order, without the right ones."""
    return tuple(rng.sample([word for word in choices if word not in right], count))


def listing(items: Sequence[object]) -> str:
    """Return the items separated by commas."""
    return ", ".join(map(str, items))


def permutations(rng: Random, items: Sequence[str], right: str) -> tuple[str, ...]:
    """Return four orders of the ``items``, as listings, none of which is ``right``."""
    found: dict[str, None] = {}
    order = list(items)
    while len(found) < 4:
        rng.shuffle(order)
        text = listing(order)
        if text != right:
            found[text] = None
    return tuple(found)

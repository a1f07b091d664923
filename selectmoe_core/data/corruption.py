"""Damage done on purpose: kinds that plugins offer, planted so that anyone can plant it again.

Nobody labels data for us, but spoiling it needs no label: the warm-up learns from damaged copies,
an audit asks whether a score finds them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from selectmoe_core.data.examples import Example, Message, content_id, conversation_problem

Apply = Callable[[Example, Example, Random], tuple[Message, ...] | None]
"""``apply(example, other, random)``: the spoilt messages, or ``None`` where it cannot be done.

``other`` is another example of the same data, to borrow from. All chance comes from ``random``.
"""


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        name: what recipes and reports call it.
        about: what it does, in a sentence.
        apply: does it.
        rate: how often a warm-up draws it, relative to other kinds, where the recipe does not say.
    """

    name: str
    about: str
    apply: Apply
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged copy of an example, and the kind of its damage."""

    kind: str
    example: Example


def plant(example: Example, damage: Damage, others: Sequence[Example], seed: int) -> Example | None:
    """Return the example damaged, or ``None`` where this kind cannot change it.

    The same id, kind, seed and ``others`` give the same result. What is no conversation any more,
    or has not changed, counts as not damaged.
    """
    random = random_of(example.id, damage.name, seed)
    messages = damage.apply(example, random.choice(others), random)
    if messages is None or messages == example.messages or conversation_problem(messages):
        return None
    return Example(content_id(messages).hex(), example.source, messages)


def plant_some(
    example: Example,
    damages: Sequence[Damage],
    rates: Mapping[str, float],
    others: Sequence[Example],
    seed: int,
) -> Damaged | None:
    """Damage an example in one of several kinds, drawn by their rates; ``None`` if none can.

    Args:
        example: what to damage.
        damages: the kinds.
        rates: how often each is drawn, by name, relative to the others; zero is never.
        others: examples to borrow from.
        seed: with the example's id it decides everything.
    """
    for damage in drawn_order(example.id, damages, rates, seed):
        planted = plant(example, damage, others, seed)
        if planted is not None:
            return Damaged(damage.name, planted)
    return None


def drawn_order(
    identity: str, damages: Sequence[Damage], rates: Mapping[str, float], seed: int
) -> Iterator[Damage]:
    """Yield the kinds of a rate above zero, drawn one after the other by their rates."""
    random = random_of(identity, "", seed)
    left = sorted(
        [damage for damage in damages if rates[damage.name] > 0], key=lambda damage: damage.name
    )
    while left:
        (drawn,) = random.choices(left, [rates[damage.name] for damage in left])
        left.remove(drawn)
        yield drawn


def random_of(*key: object) -> Random:
    """Return a generator that depends on ``key`` alone: not on the process, nor on hash seeds."""
    text = "\0".join(map(str, key)).encode()
    return Random(int.from_bytes(blake2b(text, digest_size=16).digest(), "big"))

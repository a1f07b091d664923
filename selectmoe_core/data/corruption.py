"""Damage on purpose: the kinds that plugins offer, and reproducible corrupted copies.

Damaging data needs no labels: the warm-up learns from corrupted copies of clean examples, and an
audit tests whether a score finds them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from selectmoe_core.data.examples import Example, Message, content_id, conversation_problem

Apply = Callable[[Example, Example, Random], tuple[Message, ...] | None]
"""``apply(example, other, random)``: the damaged messages, or ``None`` if that is not possible.

``other`` is another example of the same data, to take text from. ``random`` gives all randomness.
"""


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        name: its name in recipes and reports.
        about: one sentence about what it does.
        apply: damages the messages of an example.
        rate: how often a warm-up draws it, relative to other kinds, unless the recipe sets it.
    """

    name: str
    about: str
    apply: Apply
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Damaged:
    """A corrupted copy of an example, and the kind of its damage."""

    kind: str
    example: Example


def plant(example: Example, damage: Damage, others: Sequence[Example], seed: int) -> Example | None:
    """Return a corrupted copy of the example, or ``None`` if this kind cannot change it.

    The same id, kind, seed and ``others`` give the same result. A copy that is no longer a
    conversation, or that has not changed, counts as not damaged.
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
    """Damage an example by one of several kinds, drawn by their rates; ``None`` if none can.

    Args:
        example: what to damage.
        damages: the kinds.
        rates: how often each is drawn, by name, relative to the others; zero is never.
        others: examples to take text from.
        seed: together with the example's id it decides the result.
    """
    for damage in drawn_order(example.id, damages, rates, seed):
        planted = plant(example, damage, others, seed)
        if planted is not None:
            return Damaged(damage.name, planted)
    return None


def drawn_order(
    identity: str, damages: Sequence[Damage], rates: Mapping[str, float], seed: int
) -> Iterator[Damage]:
    """Yield the kinds with a rate above zero, drawn one after another by their rates."""
    random = random_of(identity, "", seed)
    left = sorted(
        [damage for damage in damages if rates[damage.name] > 0], key=lambda damage: damage.name
    )
    while left:
        (drawn,) = random.choices(left, [rates[damage.name] for damage in left])
        left.remove(drawn)
        yield drawn


def random_of(*key: object) -> Random:
    """Return a generator that depends only on ``key``, not on the process or on hash seeds."""
    text = "\0".join(map(str, key)).encode()
    return Random(int.from_bytes(blake2b(text, digest_size=16).digest(), "big"))

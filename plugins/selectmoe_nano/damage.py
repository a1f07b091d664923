"""Ways to damage an example, each with the label that an audit reads."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from selectmoe_nano.question import Question

REFUSALS = (
    "I am sorry, but I can not help with that.",
    "As a language model, I am not able to answer this question.",
    "I can not answer that. Please ask someone who knows.",
    "Sorry, this request is outside of what I can do.",
    "I have no opinion about that and can not give an answer.",
    "Thank you for asking. I am afraid I must decline.",
)
_SHORTEST = 4


class Donors(NamedTuple):
    """Answers of other questions which a swap takes."""

    foreign: str
    """Of a question of another family."""
    native: str
    """Of another question of the same family."""


Damage = Callable[[Question, Donors, Random], tuple[str, str] | None]
"""Returns the new (instruction, answer), or None where it can't change the example."""


def swap(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Take the answer of a question of another family."""
    return question.instruction, donors.foreign


def swap_within(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Take the answer of another question of the family."""
    return question.instruction, donors.native


def shuffle(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Put the answer's words, or the letters of a single word, into another order."""
    parts = question.answer.split(" ")
    joint = " "
    if len(parts) <= 2:
        parts, joint = list(question.answer), ""
    if len(question.answer) < _SHORTEST or len(set(parts)) == 1:
        return None
    original = list(parts)
    while parts == original:
        rng.shuffle(parts)
    return question.instruction, joint.join(parts).strip()


def truncate(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Cut the answer off between a third and two thirds."""
    length = len(question.answer)
    if length < _SHORTEST:
        return None
    keep = rng.randrange(max(1, length // 3), max(2, 2 * length // 3))
    return question.instruction, question.answer[:keep].strip()


def refusal(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Decline to answer."""
    return question.instruction, rng.choice(REFUSALS)


def garble(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Shuffle the instruction's words and remove a third of them; the answer stays."""
    words = question.instruction.split(" ")
    if len(words) < _SHORTEST:
        return None
    kept = rng.sample(words, len(words) - len(words) // 3)
    if kept == words[: len(kept)]:
        kept.reverse()
    return " ".join(kept), question.answer


def repeat(question: Question, donors: Donors, rng: Random) -> tuple[str, str] | None:  # noqa: ARG001
    """Repeat the answer three to five times."""
    times = rng.randrange(3, 6) if len(question.answer) < 20 else 3
    return question.instruction, " ".join([question.answer] * times)


DAMAGES: dict[str, Damage] = {
    "answer_swap": swap,
    "answer_swap_within": swap_within,
    "answer_shuffle": shuffle,
    "answer_truncate": truncate,
    "answer_repeat": repeat,
    "refusal_boilerplate": refusal,
    "instruction_garble": garble,
}
SHARES: dict[str, float] = {
    "answer_swap": 0.46,
    "answer_swap_within": 0.04,
    "answer_shuffle": 0.12,
    "answer_truncate": 0.10,
    "answer_repeat": 0.06,
    "refusal_boilerplate": 0.12,
    "instruction_garble": 0.10,
}
"""The shares of the kinds of damage; a kind that cannot change an example is replaced by a swap.

Few swaps are within one family, because no signal of single tokens can find those.
"""

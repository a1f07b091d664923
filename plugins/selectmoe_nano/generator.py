"""Streams of unique questions, the pool with its damage, and the unseen examination.

Standard library only: the pretraining tool runs where nothing else of selectmoe is installed.
"""

import zlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from selectmoe_nano import arithmetic, letters, measures, sequences, words, world
from selectmoe_nano.damage import DAMAGES, SHARES, Donors
from selectmoe_nano.question import Family, Question

FAMILIES: dict[str, Family] = {
    **arithmetic.FAMILIES,
    **sequences.FAMILIES,
    **letters.FAMILIES,
    **words.FAMILIES,
    **measures.FAMILIES,
    **world.FAMILIES,
}
HELD_OUT_ONE_IN = 8
CHOICES = 4
_PATIENCE = 2000


class Item(NamedTuple):
    """One row of the pool."""

    family: str
    instruction: str
    answer: str
    label: str | None
    """The kind of damage; None for a clean example. For audits only."""


class ExamQuestion(NamedTuple):
    """One multiple-choice question."""

    family: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


def held_out(instruction: str) -> bool:
    """Say whether an instruction belongs to the examination alone.

    A fixed property of the text: no pool and no pretraining text of any seed holds such a one.
    """
    return zlib.crc32(instruction.encode()) % HELD_OUT_ONE_IN == 0


def stream(seed: int, *, unseen: bool = False) -> Iterator[tuple[str, Question]]:
    """Yield (family, question), each question once, the families in turn in random order.

    A family which brings nothing new for long is left out from then on; the stream ends when
    none is left. With ``unseen`` only held-out questions come, otherwise only the others.
    """
    rng = Random(seed)
    seen: set[str] = set()
    active = list(FAMILIES)
    while active:
        rng.shuffle(active)
        for family in tuple(active):
            question = _fresh(FAMILIES[family], rng, seen, unseen=unseen)
            if question is None:
                active.remove(family)
            else:
                yield family, question


def _fresh(family: Family, rng: Random, seen: set[str], *, unseen: bool) -> Question | None:
    """Return a new question of the family and remember it; None if there seems to be none."""
    for _ in range(_PATIENCE):
        question = family(rng)
        text = question.instruction
        if text not in seen and held_out(text) == unseen:
            seen.add(text)
            return question
    return None


def pool(count: int, damaged: float, seed: int) -> Iterator[Item]:
    """Yield up to ``count`` unique examples; the share ``damaged`` of them is damaged and labelled.

    Memory grows with ``count`` (about half a kilobyte each). Fewer come only if the families
    have no more questions, which starts beyond some millions.
    """
    drawn = [pair for pair, _ in zip(stream(seed), range(count), strict=False)]
    rng = Random(seed + 1)
    chosen = set(rng.sample(range(len(drawn)), round(damaged * len(drawn))))
    native: dict[str, list[str]] = {}
    for family, question in drawn:
        native.setdefault(family, []).append(question.answer)
    texts = {question.instruction for _, question in drawn}
    for index, (family, question) in enumerate(drawn):
        if index in chosen:
            donors = _donors(rng, family, question, drawn, native[family])
            yield _spoil(rng, family, question, donors, texts)
        else:
            yield Item(family, question.instruction, question.answer, None)


def _donors(
    rng: Random,
    family: str,
    question: Question,
    drawn: Sequence[tuple[str, Question]],
    native: Sequence[str],
) -> Donors:
    """Draw an answer of another family and one of the same, both unlike the right one."""
    foreign = ""
    for _ in range(_PATIENCE):
        other, candidate = rng.choice(drawn)
        if other != family and candidate.answer != question.answer:
            foreign = candidate.answer
            break
    inside = list(rng.sample(native, min(8, len(native))))
    unlike = [answer for answer in inside if answer != question.answer]
    return Donors(foreign or question.wrong[0], unlike[0] if unlike else question.wrong[0])


def _spoil(rng: Random, family: str, question: Question, donors: Donors, texts: set[str]) -> Item:
    """Damage one question by a kind drawn after SHARES; ``texts`` guards uniqueness."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    changed = DAMAGES[kind](question, donors, rng)
    if changed is not None and changed[0] != question.instruction:
        if changed[0] in texts or held_out(changed[0]):
            changed = None
        else:
            texts.add(changed[0])
    if changed is None:
        kind = "answer_swap"
        changed = (question.instruction, donors.foreign)
    return Item(family, *changed, kind)


def prefix_free(question: Question) -> tuple[str, ...]:
    """Return the right answer and wrong ones such that none is the beginning of another.

    A choice is judged by the likelihood of its text, and the beginning of another choice would
    always be the likelier one of the two.
    """
    kept = [question.answer]
    for text in question.wrong:
        if not any(text.startswith(other) or other.startswith(text) for other in kept):
            kept.append(text)
    return tuple(kept[:CHOICES])


def exam(per_family: int, seed: int) -> list[ExamQuestion]:
    """Return ``per_family`` unseen questions of each family, choices in random order.

    Raises:
        ValueError: A family has too few unseen questions with four choices.
    """
    rng = Random(seed)
    seen: set[str] = set()
    questions = []
    for name, family in FAMILIES.items():
        missing = per_family
        while missing:
            question = _fresh(family, rng, seen, unseen=True)
            if question is None:
                raise ValueError(f"family {name} lacks {missing} unseen questions")
            choices = list(prefix_free(question))
            if len(choices) == CHOICES:
                rng.shuffle(choices)
                right = choices.index(question.answer)
                questions.append(ExamQuestion(name, question.instruction, tuple(choices), right))
                missing -= 1
    return questions

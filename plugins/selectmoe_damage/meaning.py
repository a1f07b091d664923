"""Damage to what an answer says: the text stays fluent, but order, numbers or facts are wrong."""

import re
from collections.abc import Callable, Iterable, Mapping
from random import Random

from selectmoe_core import Example
from selectmoe_damage.numbers import LONGEST_NUMBER, NUMBER, near
from selectmoe_damage.turns import Messages, changed

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
NAME = re.compile(r"\b[A-Z][a-z]+\b")
VERBS = (
    "is",
    "are",
    "was",
    "were",
    "can",
    "could",
    "will",
    "would",
    "should",
    "may",
    "must",
    "do",
    "does",
    "did",
    "has",
    "have",
    "had",
)
POSITIVE = re.compile(rf"\b({'|'.join(VERBS)})\b(?! not\b)", re.IGNORECASE)
NEGATIVE = re.compile(rf"\b({'|'.join(VERBS)}) not\b", re.IGNORECASE)
CONTRACTED = re.compile(
    r"\b(is|are|was|were|could|would|should|must|do|does|did|has|have|had)n't\b"
)
OPPOSITES = (
    ("yes", "no"),
    ("true", "false"),
    ("always", "never"),
    ("more", "less"),
    ("before", "after"),
    ("all", "none"),
    ("positive", "negative"),
    ("increase", "decrease"),
)
OPPOSITE = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
OPPOSED = re.compile(rf"\b({'|'.join(OPPOSITE)})\b", re.IGNORECASE)


def reordered(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Put the sentences or lines into another order."""

    def reorder(text: str) -> str | None:
        gaps = [match.group() for match in SENTENCE_END.finditer(text.strip())]
        parts = SENTENCE_END.split(text.strip())
        if len(set(parts)) < 2:
            return None
        order = list(parts)
        while order == parts:
            random.shuffle(order)
        return "".join(part + gap for part, gap in zip(order, [*gaps, ""], strict=True))

    return changed(example, "assistant", reorder)


def slipped(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Change one number a little: by one, by a step of its size, or by two digits exchanged."""

    def slip(text: str) -> str | None:
        found = [match for match in NUMBER.finditer(text) if len(match[0]) <= LONGEST_NUMBER]
        if not found:
            return None
        # Later numbers are more often results than parts of the question.
        match = random.choices(found, range(1, len(found) + 1))[0]
        wrong = near(match[0], random)
        return text[: match.start()] + wrong + text[match.end() :]

    return changed(example, "assistant", slip)


def renamed(example: Example, other: Example, random: Random) -> Messages | None:
    """Put other names in the place of names: of the same conversation, or of another example."""
    own = _names(message.content for message in example.messages)
    foreign = _names(message.content for message in other.messages)

    def rename(text: str) -> str | None:
        here = _names([text])
        if not here:
            return None
        old = random.choice(here)
        known = [name for name in own if name != old] or [name for name in foreign if name != old]
        if not known:
            return None
        new = random.choice(known)
        # Where both occur they change places, so that the answer stays a sentence about them.
        swap = {old: new, new: old}
        return NAME.sub(lambda match: swap.get(match[0], match[0]), text)

    return changed(example, "assistant", rename)


def _names(texts: Iterable[str]) -> list[str]:
    """Return the capitalised words that do not open a sentence, each once, in order."""
    found: dict[str, None] = {}
    for text in texts:
        for match in NAME.finditer(text):
            before = text[: match.start()].rstrip(" \"'(*")
            if before and before[-1] not in ".!?:;\n-":
                found[match[0]] = None
    return list(found)


def negated(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Say the opposite in one place: with or without "not", or by a word of opposite meaning."""

    def negate(text: str) -> str | None:
        places = [(match, kind) for kind in _TURNS for match in kind.finditer(text)]
        if not places:
            return None
        match, kind = random.choice(places)
        return text[: match.start()] + _TURNS[kind](match) + text[match.end() :]

    return changed(example, "assistant", negate)


def _opposite(match: re.Match[str]) -> str:
    word = OPPOSITE[match[0].lower()]
    return word.capitalize() if match[0][0].isupper() else word


_TURNS: Mapping[re.Pattern[str], Callable[[re.Match[str]], str]] = {
    NEGATIVE: lambda match: match[1],
    CONTRACTED: lambda match: match[1],
    POSITIVE: lambda match: f"{match[1]} not",
    OPPOSED: _opposite,
}
"""What turns the meaning of each kind of place around."""

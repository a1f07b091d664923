"""Damage to the answers of the assistant."""

import re
from random import Random

from selectmoe_core import Example, Message
from selectmoe_damage.turns import Messages, changed

SHORTEST = 4
"""Shorter answers (in characters) are not truncated or shuffled."""
LOOP_CHARACTERS = 1500
"""The longest repetition loop, in characters."""

OPENINGS = (
    "I'm sorry, but",
    "I apologize, however",
    "Unfortunately,",
    "Thank you for your question, but",
    "Regrettably,",
    "As an AI language model,",
)
DECLINES = (
    "I can't help with that.",
    "I am not able to answer this question.",
    "this request is beyond what I am able to do.",
    "I do not have enough information to give an answer.",
    "I have no opinion on this and cannot comment.",
    "I must decline to respond to this request.",
)
CLOSINGS = (
    "",
    " Please consult a professional.",
    " Is there anything else I can help you with?",
    " Please ask something else.",
    " Let me know if you have other questions.",
)


def swapped(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Take the answers of another example, in turn."""
    foreign = [message.content for message in other.messages if message.role == "assistant"]
    own = [message.content for message in example.messages if message.role == "assistant"]
    if {text.strip() for text in foreign} & {text.strip() for text in own}:
        return None
    turns: list[Message] = []
    number = 0
    for message in example.messages:
        if message.role == "assistant" and message.trained:
            turns.append(Message(message.role, foreign[number % len(foreign)]))
            number += 1
        else:
            turns.append(message)
    return tuple(turns)


def shuffled(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Reorder the words, or the letters if there are fewer than three words."""

    def shuffle(text: str) -> str | None:
        parts, joint = text.split(), " "
        if len(parts) < 3:
            parts, joint = list(text.strip()), ""
        if len(text.strip()) < SHORTEST or len(set(parts)) < 2:
            return None
        original = list(parts)
        while parts == original:
            random.shuffle(parts)
        return joint.join(parts)

    return changed(example, "assistant", shuffle)


def truncated(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Truncate at any character, also within a word."""

    def cut(text: str) -> str | None:
        text = text.strip()
        if len(text) < SHORTEST:
            return None
        kept = text[: max(1, int(len(text) * random.uniform(0.2, 0.67)))].strip()
        return kept or None

    return changed(example, "assistant", cut)


def looped(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Repeat two to eight words many times, as a stuck model does."""

    def loop(text: str) -> str | None:
        words = text.split()
        if not words:
            return None
        length = min(len(words), random.randint(2, 8))
        start = random.randint(0, len(words) - length)
        stretch = " ".join(words[start : start + length])
        times = min(random.randint(3, 12), max(3, LOOP_CHARACTERS // len(stretch)))
        return " ".join([*words[:start], *[stretch] * times])

    return changed(example, "assistant", loop)


def refused(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Refuse to answer."""

    def refuse(_: str) -> str:
        parts = (random.choice(OPENINGS), random.choice(DECLINES), random.choice(CLOSINGS))
        return f"{parts[0]} {parts[1]}{parts[2]}"

    return changed(example, "assistant", refuse)


def miscounted(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Replace every number by another of as many digits."""

    def another(match: re.Match[str]) -> str:
        digits = match.group()
        while True:
            drawn = "".join([random.choice("0123456789") for _ in digits])
            if drawn != digits and (len(digits) == 1 or drawn[0] != "0"):
                return drawn

    def miscount(text: str) -> str | None:
        return re.sub("[0-9]+", another, text) if re.search("[0-9]", text) else None

    return changed(example, "assistant", miscount)

"""Damage to instructions and to roles."""

from random import Random
from string import ascii_lowercase

from selectmoe_core import Example, Message
from selectmoe_damage.turns import Messages, changed

FEWEST = 4
"""Instructions with fewer words are not garbled."""


def garbled(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Remove a quarter of the words, scramble or replace a third, and change their order."""

    def noise(word: str) -> str:
        drawn = random.random()
        if drawn < 0.2:
            return "".join(random.sample(word, len(word)))
        if drawn < 0.35:
            return "".join([random.choice(ascii_lowercase) for _ in range(random.randint(2, 10))])
        return word

    def garble(text: str) -> str | None:
        words = text.split()
        if len(words) < FEWEST:
            return None
        kept = random.sample(words, len(words) - len(words) // 4)
        if kept == words[: len(kept)]:
            kept.reverse()
        return " ".join(map(noise, kept))

    return changed(example, "user", garble)


def echoed(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Answer with the question itself."""
    turns: list[Message] = []
    asked = ""
    for message in example.messages:
        if message.role == "user":
            asked = message.content
        echo = message.role == "assistant" and message.trained and asked.strip()
        turns.append(Message(message.role, asked) if echo else message)
    return tuple(turns)


def exchanged(example: Example, other: Example, random: Random) -> Messages | None:  # noqa: ARG001
    """Exchange the texts of each question and the answer after it."""
    turns = list(example.messages)
    pairs = zip(range(len(turns) - 1), example.messages, example.messages[1:], strict=False)
    for place, message, following in pairs:
        asked = (message.role, following.role) == ("user", "assistant") and following.trained
        if asked and message.content.strip():
            turns[place] = Message("user", following.content)
            turns[place + 1] = Message("assistant", message.content)
    return tuple(turns)

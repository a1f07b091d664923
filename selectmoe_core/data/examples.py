"""Examples: messages, ids, and why an example cannot be used."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from typing import Literal

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        content: the text.
        trained: whether an answer is trained on; otherwise the model only reads it.
    """

    role: Role
    content: str
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that can be scored and trained on.

    Attributes:
        id: 32 hexadecimal digits, computed only from the messages: equal content, equal id.
        source: the name of the data set it came from.
        messages: the turns, in order.
    """

    id: str
    source: str
    messages: tuple[Message, ...]

    @property
    def prompt(self) -> str:
        """All text before the last answer, as plain text."""
        last = max((i for i, m in enumerate(self.messages) if m.role == "assistant"), default=None)
        return "\n".join(message.content for message in self.messages[:last])

    @property
    def response(self) -> str:
        """The answers of the assistant that are trained on, as plain text."""
        return "\n".join(m.content for m in self.messages if m.role == "assistant" and m.trained)


@dataclass(frozen=True, slots=True)
class RawExample:
    """What a reader returns: a conversation and where it was found.

    ``where`` is ``file:line`` or the like; ``original_id`` and ``label`` are kept in the pool's
    ``meta``, which scorers, selectors and trainers never see.
    """

    source: str
    messages: tuple[Message, ...]
    where: str = ""
    original_id: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class RawPair:
    """What a reader returns for a row of preferences: a better and a worse conversation.

    Both have one source and one place.
    """

    chosen: RawExample
    rejected: RawExample


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that a reader could not use, and why."""

    source: str
    where: str
    reason: str


def content_id(messages: Iterable[Message]) -> bytes:
    """Return the 16-byte id of a conversation: BLAKE2b over its roles, texts and weights.

    The length before each text separates conversations that would otherwise look the same.
    """
    text = "".join([_identity(message) for message in messages])
    # Lone surrogates are legal in JSON escapes and in Python strings, not in UTF-8.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).digest()


def _identity(message: Message) -> str:
    text = f"{message.role} {len(message.content)} {message.content}"
    return text if message.trained else f"untrained {text}"


def conversation_problem(messages: tuple[Message, ...]) -> str | None:
    """Return why a conversation cannot be used, or ``None`` if it can."""
    if not messages:
        return "it has no messages"
    roles = [message.role for message in messages]
    answers = [message for message in messages if message.role == "assistant"]
    if not any([message.trained and message.content.strip() for message in answers]):  # noqa: C419
        return _no_answer(answers)
    if roles[0] == "assistant":
        return "it starts with the assistant"
    if "system" in roles[1:]:
        return "a system message is not the first message"
    return None


def _no_answer(answers: Sequence[Message]) -> str:
    if not answers:
        return "it has no answer by the assistant"
    if any(message.content.strip() for message in answers):
        return "no answer is trained on: every weight is 0"
    return "every answer of the assistant is empty"


class Part(IntEnum):
    """What a token is part of."""

    FORMAT = 0
    """The chat format's own text: role markers, line ends, begin-of-sequence."""
    PROMPT = 1
    """A message of the user or the system."""
    RESPONSE = 2
    """An answer of the assistant, with the end-of-sequence that closes it."""
    CONTEXT = 3
    """An answer that is not trained on: its weight is 0, and the model only reads it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``stop`` of a rendered text belong to ``part``."""

    start: int
    stop: int
    part: Part


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as one text, with the part that each piece of it belongs to."""

    text: str
    spans: tuple[Span, ...] = field(default=())

"""Changing the texts of one role without changing the rest."""

from collections.abc import Callable
from dataclasses import replace

from selectmoe_core import Example, Message

Messages = tuple[Message, ...]
Change = Callable[[str], str | None]
"""Returns the new text, or ``None`` if it cannot be changed."""


def changed(example: Example, role: str, change: Change) -> Messages | None:
    """Return the messages with every text of ``role`` changed that can be; ``None`` if none can."""
    # An answer that is not trained on is kept: damaging it would have no effect on training.
    found = [
        change(message.content) if message.role == role and message.trained else None
        for message in example.messages
    ]
    if not any(text is not None for text in found):
        return None
    return tuple(
        message if text is None else replace(message, content=text)
        for message, text in zip(example.messages, found, strict=True)
    )

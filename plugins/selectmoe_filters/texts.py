"""The text of an example that a filter looks at, and its words."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from selectmoe_core import Example, Message

Text = Literal["conversation", "prompt", "answers"]

_SCRIPTS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Kana, Han and Hangul: written without spaces, so that each sign counts as a word."""
_WORD = f"[{_SCRIPTS}]|[^\\W_{_SCRIPTS}]+"
WORD = re.compile(_WORD)
SIGN = re.compile(f"[{_SCRIPTS}]")
TOKEN = re.compile(f"{_WORD}|[^\\w\\s]|_")


def parts(example: Example, text: Text) -> Sequence[Message]:
    """Return the messages that make up a text."""
    if text == "conversation":
        return example.messages
    if text == "answers":
        return [m for m in example.messages if m.role == "assistant" and m.trained]
    last = max(i for i, m in enumerate(example.messages) if m.role == "assistant")
    return example.messages[:last]


def folded(text: str) -> str:
    """Return a text without upper case, in one form of Unicode, with single spaces between words.

    Texts that differ in white space or case alone become the same.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """Return the words of a text without its punctuation."""
    return WORD.findall(folded(text))


def tokens(folded_text: str) -> list[str]:
    """Return the words and the signs of punctuation of a folded text."""
    return TOKEN.findall(folded_text)

"""What was found, as lines for the terminal, with rows as the model will see them."""

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from selectmoe_core import Example, RawExample, shown
from selectmoe_core.data import content_id
from selectmoe_core.tokens import ChatConfig, ChatFormat
from selectmoe_readers.init.look import Look

SHOWN = 3
MOST_CHARACTERS, START, END = 300, 200, 60
"""Longer messages are shown by their first and their last characters."""
INDENT = "    "
MOST_SOURCES, MOST_REASONS = 8, 5
LENGTHS = (256, 512, 1024, 1536, 2048, 4096)
"""Values of ``chat.max_length`` to choose from."""
ENOUGH = 0.99
"""The share of rows that must not be truncated."""


def found_lines(look: Look) -> Iterator[str]:
    """Yield what the files hold: format, columns, sources, and what cannot be used."""
    yield f"reader   {look.reader}, rows as {look.row_format or '?'}"
    yield f"columns  {', '.join(look.columns)}"
    for option, column in look.guessed.items():
        yield f"         {shown(column)} is taken as {option}: check the rows below"
    more = "" if look.whole else " (more rows were not looked at)"
    yield f"rows     {look.rows:,} can be used{more}"
    named = [f"{name} {count:,}" for name, count in look.sources.most_common(MOST_SOURCES)]
    rest = len(look.sources) - MOST_SOURCES
    yield f"sources  {', '.join(named)}{f' and {rest} more' if rest > 0 else ''}"
    if look.duplicates:
        yield f"lost     {look.duplicates:,} repeat an earlier row"
    if look.rejected:
        yield f"lost     {look.rejected.total():,} cannot be used:"
    for reason, count in look.rejected.most_common(MOST_REASONS):
        yield f"         {count:,} x {reason}, first at {look.places[reason]}"


def row_lines(look: Look, tokenizer: Any, max_length: int) -> Iterator[str]:  # noqa: ANN401
    """Yield three rows as the model will see them, and how many tokens of each are trained on."""
    chat = ChatFormat(ChatConfig(max_length=max_length))
    width = shutil.get_terminal_size((100, 24)).columns
    for row in look.sample[:SHOWN]:
        turns = [replace(turn, content=_shortened(turn.content)) for turn in row.messages]
        (encoded,) = chat.encode([_example(row)], tokenizer)
        counted = int(chat.counts(encoded.parts).sum())
        cut = ", truncated" if encoded.cut else ""
        yield f"--- {row.where}: {len(encoded.ids):,} tokens, {counted:,} trained on{cut}"
        for line in chat.render(turns, tokenizer).text.rstrip().splitlines():
            yield from _wrapped(line, max(width, 40))


def shortens(look: Look) -> bool:
    """Return whether a row is shown in part."""
    rows = look.sample[:SHOWN]
    return any(len(turn.content) > MOST_CHARACTERS for row in rows for turn in row.messages)


def choose_length(look: Look, tokenizer: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return a length that truncates nearly no row, and how many of the sample it truncates."""
    chat = ChatFormat(ChatConfig(max_length=LENGTHS[-1]))
    encoded = chat.encode([_example(row) for row in look.sample], tokenizer)
    lengths = np.array([len(one.ids) for one in encoded])
    fitting = [size for size in LENGTHS if (lengths <= size).mean() >= ENOUGH]
    length = fitting[0] if fitting else LENGTHS[-1]
    return length, int((lengths > length).sum())


def _example(row: RawExample) -> Example:
    return Example(content_id(row.messages).hex(), row.source, row.messages)


def _shortened(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:START]} [... {len(text) - START - END:,} characters ...] {text[-END:]}"


def _wrapped(line: str, width: int) -> list[str]:
    found = textwrap.wrap(
        line, width, initial_indent=INDENT, subsequent_indent=INDENT, replace_whitespace=False
    )
    return found or [""]

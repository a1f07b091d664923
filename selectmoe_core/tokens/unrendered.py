"""Rows of a pool that its chat format cannot render: which, and why."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from selectmoe_core.data.examples import Part
from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import ModelError
from selectmoe_core.store import write_text
from selectmoe_core.tokens.chat import ChatFormat
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.tokenize import place_of
from selectmoe_core.tokens.tokenizer import Tokenizer

FILE = "unrendered.jsonl"
REASON = "the chat format cannot render it"
"""Why such a row has no score."""


@dataclass(frozen=True)
class Unrendered:
    """A row that the chat format cannot render.

    Attributes:
        row: its number in the pool.
        where: where it was found, as in ``data.jsonl:2``.
        reason: what the template said.
    """

    row: int
    where: str
    reason: str


def among(encoded: Encoded, rows: np.ndarray) -> np.ndarray:
    """Return which of the given rows stand for one that was left out, bool ``[rows]``."""
    some = encoded.joined(rows)
    first = some.starts[:-1]
    return np.asarray((some.lengths == 1) & (some.parts[first] == Part.CONTEXT))


def unrendered_rows(encoded: Encoded) -> np.ndarray:
    """Return the rows that were left out because the chat format cannot render them, int64."""
    rows = np.flatnonzero((encoded.lengths == 1) & (encoded.counted == 0))
    return rows[among(encoded, rows)] if len(rows) else rows


def note(
    folder: Path, pool: Pool, encoded: Encoded, chat: ChatFormat, tokenizer: Tokenizer
) -> list[Unrendered]:
    """Write the rows that were left out with their reasons into ``folder``, and return them."""
    found = list(_found(pool, encoded, chat, tokenizer))
    if found:
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in found]
        write_text(folder / FILE, "".join(f"{line}\n" for line in lines))
    return found


def _found(
    pool: Pool, encoded: Encoded, chat: ChatFormat, tokenizer: Tokenizer
) -> Iterator[Unrendered]:
    for row in unrendered_rows(encoded).tolist():
        (example,) = pool.examples(row, row + 1)
        try:
            chat.render(example.messages, tokenizer)
        except ModelError as error:
            yield Unrendered(row, place_of(pool, row), str(error))

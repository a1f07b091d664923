"""Rows of a pool: tokenised when asked for, and in an order that their ids decide."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from selectmoe_core.data.examples import Example
from selectmoe_core.data.pool import hash_ids
from selectmoe_core.tokens.chat import ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode
from selectmoe_core.tokens.tokenizer import Tokenizer


class Rows:
    """Examples, tokenised when first asked for.

    Their tokens are made once: all models that read them must have one tokenizer.

    Args:
        examples: the rows.
        chat: the format.
        folder: where the tokens go.
    """

    def __init__(self, examples: Sequence[Example], chat: ChatFormat, folder: Path) -> None:
        self.examples = examples
        self._chat = chat
        self._folder = folder
        self._encoded: Encoded | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @property
    def ids(self) -> list[str]:
        """The rows' names, which derive from their content."""
        return [example.id for example in self.examples]

    def encoded(self, tokenizer: Tokenizer) -> Encoded:
        """Return their tokens."""
        if self._encoded is None:
            self._encoded = encode(self.examples, self._folder, self._chat, tokenizer)
        return self._encoded


def drawn_order(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return the examples in an order that depends on their ids and the seed alone."""
    by_id = sorted(examples, key=lambda example: example.id)
    text = bytes.fromhex("".join(example.id for example in by_id))
    words = np.frombuffer(text, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return [by_id[place] for place in np.argsort(hash_ids(words, seed), kind="stable")]

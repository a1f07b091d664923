"""Text in the data that looks like a control token stays text.

A tokenizer reads ``</s>`` in a row's text as the end of the sequence. Rows with such text are
tokenised by a copy of the tokenizer whose control tokens have other names: in the rendered text
the format's own control tokens get those names, and the text of the data is then plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from selectmoe_core.data.examples import Message, Rendered

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

ROLE_LIKE = re.compile("<[|\uff5c].*[|\uff5c]>", re.DOTALL)
"""Tokens such as ``<|user|>`` are control tokens even where a tokenizer does not mark them so."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""Tokens of single bytes, which some tokenizers list with their control tokens."""
PRIVATE = re.compile("[\U00100000-\U0010ffff]")
"""The last private-use plane of Unicode: names of control tokens are made from it."""
NAMES, HIDDEN, FILL = 0x100000, 0x108000, "\U0010fffd"


def control_tokens(backend: Backend) -> tuple[str, ...]:
    """Return the texts of a backend tokenizer's control tokens, the longest first."""
    found = {
        token.content
        for token in backend.get_added_tokens_decoder().values()
        if token.content.strip()
        and (token.special or ROLE_LIKE.fullmatch(token.content))
        and not BYTE.fullmatch(token.content)
    }
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of a tokenizer, and how text that looks like them is kept apart.

    Attributes:
        backend: the tokenizer.
        pattern: finds the text of a control token.
        names: the same-length name that each control token has in the copy of the tokenizer.
        hidden: what replaces the text of a control token while a template renders a row.
        normalizes: whether normalisation can turn other text into that of a control token.
    """

    backend: Backend
    pattern: re.Pattern[str]
    names: Mapping[str, str]
    hidden: Mapping[str, str]
    normalizes: bool

    @classmethod
    def of(cls, tokenizer: Any) -> ControlTokens:  # noqa: ANN401
        """Return the control tokens of a transformers tokenizer."""
        backend = tokenizer.backend_tokenizer
        texts = control_tokens(backend)
        added = backend.get_added_tokens_decoder().values()
        normalized = any(token.normalized and token.content in texts for token in added)
        by_text = type(backend.model).__name__ in ("Unigram", "WordLevel")
        return cls(
            backend,
            re.compile("|".join(map(re.escape, texts)) or "(?!)"),
            {text: _private(NAMES + place, text) for place, text in enumerate(texts)},
            {text: _private(HIDDEN + place, text) for place, text in enumerate(texts)},
            normalizes=backend.normalizer is not None and (normalized or by_text),
        )

    def stand_in(self, messages: Iterable[Message]) -> bool:
        """Return whether a text of the messages looks like a control token."""
        return any(self._found(message.content) for message in messages)

    def hide(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the messages with same-length replacements for the text of control tokens."""
        return tuple(replace(message, content=self._hide(message.content)) for message in messages)

    def reveal(self, rendered: Rendered) -> Rendered:
        """Return the text that was rendered from hidden messages, in the form for ``encode``."""
        named = self.pattern.sub(lambda found: self.names[found[0]], rendered.text)
        texts = {stand_in: text for text, stand_in in self.hidden.items()}
        hidden = re.compile("|".join(texts) or "(?!)")
        return Rendered(hidden.sub(lambda found: texts[found[0]], named), rendered.spans)

    def encode(
        self,
        texts: Sequence[str],
        tokenizer: Any,  # noqa: ANN401
        *,
        special: bool,
    ) -> list[tuple[list[int], Encoding]]:
        """Tokenise revealed texts; ``special`` adds the tokens that the tokenizer itself adds."""
        renamed = _COPIES.get(tokenizer)
        if renamed is None or renamed[0] != self.names:
            renamed = self.names, _renamed(self.backend, self.names)
            _COPIES[tokenizer] = renamed
        found = renamed[1].encode_batch(list(texts), add_special_tokens=special)
        return [(encoding.ids, encoding) for encoding in found]

    def _found(self, text: str) -> bool:
        if self.pattern.search(text):
            return True
        if not self.normalizes:
            return False
        return bool(self.pattern.search(self.backend.normalizer.normalize_str(text)))

    def _hide(self, text: str) -> str:
        # The data must not contain characters of our own names.
        text = PRIVATE.sub("\ufffd", text)
        return self.pattern.sub(lambda found: self.hidden[found[0]], text)


_COPIES: WeakKeyDictionary[Any, tuple[Mapping[str, str], Backend]] = WeakKeyDictionary()
"""Tokenizers with renamed control tokens, kept because making one takes time."""


def _private(code: int, text: str) -> str:
    return chr(code) + FILL * (len(text) - 1)


def _renamed(backend: Backend, names: Mapping[str, str]) -> Backend:
    """Return a copy of a tokenizer with other names, but the same ids, for control tokens."""
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    state["truncation"] = state["padding"] = None
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = state["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {names.get(text, text): code for text, code in model["vocab"].items()}
    elif "vocab" in model:
        model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes(pair, names)]
    copy = Tokenizer.from_str(json.dumps(state))
    for text, name in names.items():
        if copy.token_to_id(name) != backend.token_to_id(text):
            raise RuntimeError(f"the control token {text!r} has another id in the copy")
    return copy


def _makes(merge: str | list[str], names: Mapping[str, str]) -> bool:
    """Return whether a BPE merge needs or makes the text of a control token."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return not names.keys().isdisjoint((left, right, left + right))

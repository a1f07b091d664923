"""Prompts that ask a scorer model about an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from selectmoe_core import Message
from selectmoe_core.tokens import ControlTokens, Rendered

PLACE = re.compile(r"\{(instruction|output)\}")
Turn = tuple[Message, Message]
"""The request of the user, and the answer."""


@dataclass(frozen=True)
class Prompts:
    """Fills a template and tokenises it.

    Text of a row that looks like a control token stays text.

    Attributes:
        tokenizer: the scorer model's.
        template: with ``{instruction}`` and ``{output}``.
        chat: whether the filled template is asked as a user's message in the model's own format.
    """

    tokenizer: Any
    template: str
    chat: bool

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens.of(self.tokenizer)

    def of(self, turns: Sequence[Turn]) -> list[np.ndarray]:
        """Return the token ids of the prompt for each turn, int64 ``[length]``."""
        return [np.array(self._ids(turn), dtype=np.int64) for turn in turns]

    def _ids(self, turn: Turn) -> list[int]:
        special = not self.chat
        if not self._control.stand_in(turn):
            text = self._text(turn)
            ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
            return ids
        hidden = self._text(self._control.hide(turn))
        revealed = self._control.reveal(Rendered(hidden)).text
        return self._control.encode([revealed], self.tokenizer, special=special)[0][0]

    def _text(self, turn: Sequence[Message]) -> str:
        filled = fill(self.template, turn[0].content, turn[1].content)
        if not self.chat:
            return filled
        asked = [{"role": "user", "content": filled}]
        text: str = self.tokenizer.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True
        )
        return text


def fill(template: str, instruction: str, output: str) -> str:
    """Return a template with the two texts in their places; braces in the texts mean nothing."""
    texts = {"instruction": instruction, "output": output}
    return PLACE.sub(lambda place: texts[place[1]], template)


def asked_turns(messages: Sequence[Message]) -> list[Turn]:
    """Return each answer that is trained on, with the user's message right before it."""
    return [
        (request, answer)
        for request, answer in pairwise(messages)
        if request.role == "user" and answer.role == "assistant" and answer.trained
    ]

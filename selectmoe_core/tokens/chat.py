"""The chat format: messages to text to tokens, and which tokens count. One for all stages.

A plan reads the options and the digest: numpy is imported only where tokens are at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, PositiveInt

from selectmoe_core.config import Config
from selectmoe_core.data.examples import Example, Message, Part, Rendered, Span
from selectmoe_core.errors import DataError, ModelError
from selectmoe_core.tokens.spans import keeps_order, parts_at_borders, parts_of_all

if TYPE_CHECKING:
    import numpy as np

MARK = "\ue000selectmoe\ue001"
"""Stands for a turn's text to see where a template puts it: characters of private use."""


class Tokenizer(Protocol):
    """The part of a transformers fast tokenizer that selectmoe uses."""

    eos_token: str | None
    is_fast: bool
    chat_template: Any
    backend_tokenizer: Any

    def __call__(self, text: list[str], **options: Any) -> Any:  # noqa: ANN401
        """Return ``input_ids`` and, as ``encodings``, where the tokens stand."""
        ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:  # noqa: ANN401
        """Return the conversation as text."""
        ...


class ChatConfig(Config):
    """How conversations become text and tokens, the same for every stage."""

    template: str = Field(default="tulu", min_length=1)
    """``tulu`` (as LESS uses it), ``model`` (the tokenizer's own) or a file (a Jinja template)."""
    max_length: PositiveInt = 2048
    """Tokens of an example beyond this are cut off (and the example is counted as cut)."""
    loss_on: Literal["responses", "everything"] = "responses"
    """Which tokens training and response statistics count."""
    average: Literal["token", "example"] = "token"
    """Training loss: every counted token weighs the same, or every example does."""
    mask_format: bool = False
    """Leave the format's own tokens (role markers) out even where everything counts."""


@dataclass(frozen=True)
class EncodedExample:
    """The tokens of one example.

    Attributes:
        ids: token ids, int32 ``[length]``.
        parts: what each token is part of (``Part``), uint8 ``[length]``.
        cut: whether ``max_length`` cut tokens off.
    """

    ids: np.ndarray
    parts: np.ndarray
    cut: bool


class ChatFormat:
    """A chat format ready to use: the options and the text of the template."""

    def __init__(self, config: ChatConfig, template: str | None = None) -> None:
        self.config = config
        self.template = template

    @classmethod
    def load(cls, config: ChatConfig) -> ChatFormat:
        """Read the template file, where the options name one."""
        if config.template in ("tulu", "model"):
            return cls(config)
        try:
            return cls(config, Path(config.template).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise DataError(
                f"[chat]: cannot read the template {config.template}: {what}",
                hint="template is 'tulu', 'model' or a file with a Jinja chat template",
            ) from None

    @property
    def digest(self) -> str:
        """Covers all that decides tokens and masks, the text of the template included."""
        fields = self.config.model_dump(mode="json")
        if self.template is not None:
            fields["template"] = self.template
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        """Return the conversation as one text with the parts of its characters."""
        if self.config.template == "tulu":
            return render_tulu(messages, _eos(tokenizer))
        return _render_with_template(messages, tokenizer, self.template)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return the tokens of each example, cut to ``max_length``."""
        if not tokenizer.is_fast:
            raise ModelError(
                "this model has only a slow tokenizer, which cannot tell where its tokens stand",
                hint="use a checkpoint with a tokenizer.json",
            )
        import numpy as np

        rendered = [self.render(example.messages, tokenizer) for example in examples]
        # A template writes its own begin-of-sequence; tulu leaves it to the tokenizer.
        special = self.config.template == "tulu"
        batch = tokenizer(
            [text.text for text in rendered],
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        added = tokenizer.backend_tokenizer.num_special_tokens_to_add(False) if special else 0
        ordered, limit = keeps_order(tokenizer.backend_tokenizer), self.config.max_length
        found = []
        for ids, encoding, text in zip(batch["input_ids"], batch.encodings, rendered, strict=True):
            cut = len(ids) > limit
            if ordered:
                parts = parts_at_borders(encoding, added, text)
            else:
                parts = parts_of_all(encoding, text)
            kept = np.array(ids[:limit] if cut else ids, dtype=np.int32)
            found.append(EncodedExample(kept, parts[:limit], cut))
        return found

    def counts(self, parts: np.ndarray) -> np.ndarray:
        """Return which tokens count for the loss, bool, of the same shape as ``parts``."""
        mask: np.ndarray = parts != Part.CONTEXT
        if self.config.loss_on == "responses":
            mask = parts == Part.RESPONSE
        elif self.config.mask_format:
            mask &= parts != Part.FORMAT
        return mask


def render_tulu(messages: Sequence[Message], eos: str) -> Rendered:
    """Return the Tulu format: ``<|role|>``, a line end, the text; an answer closes with ``eos``.

    Source of the format: open-instruct and LESS (``encode_with_messages_format``).
    """
    text, spans = "", []
    for message in messages:
        text += f"<|{message.role}|>\n"
        answer = message.role == "assistant"
        body = message.content.strip() + (eos if answer else "")
        part = answer_part(message) if answer else Part.PROMPT
        spans.append(Span(len(text), len(text) + len(body), part))
        text += body + "\n"
    return Rendered(text, tuple(spans))


def answer_part(message: Message) -> Part:
    """Return what an answer's tokens are: one of weight 0 is context."""
    return Part.RESPONSE if message.trained else Part.CONTEXT


def answer_ends(parts: np.ndarray, starts: Sequence[int] | np.ndarray = (0,)) -> np.ndarray:
    """Return which tokens are the last of an answer, bool ``[tokens]``.

    It is the token that closes the answer, or where ``max_length`` cut it off the last one left.

    Args:
        parts: what each token is part of, one example or several behind one another.
        starts: the first token of each example.
    """
    import numpy as np

    answer = np.asarray(parts) == Part.RESPONSE
    goes_on = np.zeros(len(answer), dtype=bool)
    goes_on[:-1] = answer[1:]
    borders = np.asarray(starts, dtype=np.int64)
    borders = borders[(borders > 0) & (borders <= len(answer))]
    goes_on[borders - 1] = False
    ends: np.ndarray = answer & ~goes_on
    return ends


def _eos(tokenizer: Tokenizer) -> str:
    if not tokenizer.eos_token:
        raise ModelError(
            "the tokenizer has no end-of-sequence token, which closes every answer",
            hint='set [chat] template = "model" or use another checkpoint',
        )
    return tokenizer.eos_token


def _render_with_template(
    messages: Sequence[Message], tokenizer: Tokenizer, template: str | None
) -> Rendered:
    """Render with a Jinja template; the answers are found by rendering every prefix.

    What an assistant turn adds beyond the generation prompt is the answer, line ends after it
    excepted; what another turn adds around its own text is format.
    """
    if template is None and not tokenizer.chat_template:
        raise ModelError(
            "[chat] template = 'model', but this model's tokenizer has no chat template",
            hint='set [chat] template = "tulu", or name a file with a Jinja template',
        )
    options = {} if template is None else {"chat_template": template}
    turns = [{"role": message.role, "content": message.content} for message in messages]

    def text_of(some: list[dict[str, str]], *, prompt: bool = False) -> str:
        return _applied(tokenizer, some, {"add_generation_prompt": prompt, **options})

    whole = text_of(turns)
    spans = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            start = len(_prefix(text_of(turns[:index], prompt=True), whole))
            last = index + 1 == len(turns)
            stop = len(whole if last else _prefix(text_of(turns[: index + 1]), whole))
            stop = start + len(whole[start:stop].rstrip("\n"))
            spans.append(Span(start, stop, answer_part(message)))
        else:
            marked = [*turns[:index], {**turns[index], "content": MARK}, *turns[index + 1 :]]
            head, _, tail = text_of(marked).partition(MARK)
            start, stop = len(head), len(whole) - len(tail)
            # Where a template rewrites a text beyond recognition, that text counts as format.
            if start < stop and whole.startswith(head) and whole.endswith(tail):
                spans.append(Span(start, stop, Part.PROMPT))
    return Rendered(whole, tuple(spans))


def _applied(tokenizer: Tokenizer, turns: list[dict[str, str]], options: dict[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ModelError(
            f"the chat template cannot render a conversation of {roles}: {error}",
            hint='set [chat] template = "tulu", or name a file with another template',
        ) from error


def _prefix(part: str, whole: str) -> str:
    if not whole.startswith(part):
        raise ModelError(
            "this chat template rewrites earlier turns when a later one is added, so its answers "
            "cannot be told from the rest",
            hint='set [chat] template = "tulu", or name a template whose turns only append',
        )
    return part

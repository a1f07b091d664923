"""The chat format of all stages: from messages to text to tokens, and which tokens count.

A plan reads only the options and the digest: numpy is imported only when there are tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from selectmoe_core.config import Config
from selectmoe_core.data.examples import Example, Message, Part, Rendered, Span
from selectmoe_core.errors import ModelError
from selectmoe_core.tokens.control import ControlTokens
from selectmoe_core.tokens.spans import keeps_order, parts_at_borders, parts_of_all
from selectmoe_core.tokens.templates import (
    RowError,
    TemplateRenderer,
    answer_part,
    read_template,
)
from selectmoe_core.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Encoding


class ChatConfig(Config):
    """How conversations become text and tokens, the same for every stage."""

    template: str = Field(default="tulu", min_length=1)
    """``tulu`` (as in LESS), ``model`` (the tokenizer's own) or a file (a Jinja template)."""
    max_length: Annotated[PositiveInt, Field(le=1 << 24)] = 2048
    """Longer examples are truncated to this number of tokens (and counted as truncated)."""
    loss_on: Literal["responses", "everything"] = "responses"
    """Which tokens count in training and in statistics over responses."""
    average: Literal["token", "example"] = "token"
    """Training loss: every counted token has the same weight, or every example has."""
    mask_format: bool = False
    """Leave out the format's own tokens (role markers) even if everything counts."""


@dataclass(frozen=True)
class EncodedExample:
    """The tokens of one example.

    Attributes:
        ids: token ids, int32 ``[length]``.
        parts: what each token is part of (``Part``), uint8 ``[length]``.
        cut: whether ``max_length`` truncated the example.
    """

    ids: np.ndarray
    parts: np.ndarray
    cut: bool

    @classmethod
    def left_out(cls) -> EncodedExample:
        """Return what stands for an example that cannot be rendered: a token that never counts."""
        import numpy as np

        return cls(np.zeros(1, np.int32), np.full(1, Part.CONTEXT, np.uint8), cut=False)


class ChatFormat:
    """A chat format ready to use: the options and the text of the template."""

    def __init__(
        self, config: ChatConfig, template: str | None = None, *, skips: bool = False
    ) -> None:
        """Use a template's text.

        Args:
            config: the options.
            template: the text of the file that the options name.
            skips: an example that cannot be rendered is left out: no token of it counts. Otherwise
                it is an error.
        """
        self.config = config
        self.template = template
        self.skips = skips

    @classmethod
    def load(cls, config: ChatConfig, *, skips: bool = False) -> ChatFormat:
        """Read the template file, if the options name one."""
        if config.template in ("tulu", "model"):
            return cls(config, skips=skips)
        return cls(config, read_template(Path(config.template)), skips=skips)

    @property
    def digest(self) -> str:
        """Covers everything that decides tokens and masks, including the template's text."""
        fields = self.config.model_dump(mode="json")
        if self.template is not None:
            fields["template"] = self.template
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise a ``ModelError`` if no conversation at all can be rendered and tokenised."""
        simple = (Message("user", "a"), Message("assistant", "b"))
        strict = ChatFormat(self.config, self.template)
        try:
            strict.encode([Example("", "", simple)], tokenizer)
        except ModelError:
            # A template may require a system message: one of the two must work.
            try:
                strict.encode([Example("", "", (Message("system", "a"), *simple))], tokenizer)
            except ModelError:
                pass
            else:
                return
            raise

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer) -> Rendered:
        """Return the conversation as one text with the parts of its characters."""
        with self._renderer(tokenizer) as render:
            return render(messages)

    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> str:
        """Return the text of a conversation up to where the next answer begins, as in training."""
        rendered = self.render([*messages, Message("assistant", "answer")], tokenizer)
        return rendered.text[: rendered.spans[-1].start]

    @contextmanager
    def _renderer(self, tokenizer: Tokenizer) -> Iterator[Callable[[Sequence[Message]], Rendered]]:
        """Yield a function that renders conversations."""
        if self.config.template == "tulu":
            eos = _eos(tokenizer)
            yield lambda messages: render_tulu(messages, eos)
            return
        name = f"the chat template {self.config.template}"
        if self.template is None:
            name = f"the chat template of {getattr(tokenizer, 'name_or_path', '') or 'the model'}"
        with TemplateRenderer(tokenizer, self.template, name) as renderer:
            yield renderer.render

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return the tokens of each example, truncated to ``max_length``.

        Text in the data that looks like a control token is tokenised as plain text.
        """
        if not tokenizer.is_fast:
            raise ModelError(
                "this model has only a slow tokenizer, which gives no positions of its tokens",
                hint="use a checkpoint with a tokenizer.json",
            )
        # A template writes its own begin-of-sequence; for tulu the tokenizer adds it.
        special = self.config.template == "tulu"
        if special:
            _eos(tokenizer)
        backend = tokenizer.backend_tokenizer
        added = backend.num_special_tokens_to_add(False) if special else 0
        borders = parts_of_all
        if keeps_order(backend):
            borders = partial(parts_at_borders, added=added)
        return [
            found
            if isinstance(found, EncodedExample)
            else self._cut(found[1], borders(found[2], rendered=found[0]))
            for found in self._tokenised(examples, tokenizer, special=special)
        ]

    def _tokenised(
        self, examples: Sequence[Example], tokenizer: Tokenizer, *, special: bool
    ) -> Iterator[tuple[Rendered, list[int], Encoding] | EncodedExample]:
        """Yield each example as text and token ids with their positions, in order.

        For an example that is left out, what stands for it is yielded.

        Raises:
            RowError: an example cannot be rendered.
        """
        control = ControlTokens.of(tokenizer)
        disguised = {n for n, one in enumerate(examples) if control.stand_in(one.messages)}
        rendered = self._rendered(examples, tokenizer, control, disguised)
        texts = {number: one.text for number, one in enumerate(rendered) if one is not None}
        plain = [text for number, text in texts.items() if number not in disguised]
        others = [text for number, text in texts.items() if number in disguised]
        ours = iter(control.encode(others, tokenizer, special=special) if others else ())
        theirs = iter(_encodings(plain, tokenizer, special=special) if plain else ())
        for number, one in enumerate(rendered):
            if one is None:
                yield EncodedExample.left_out()
            else:
                yield one, *next(ours if number in disguised else theirs)

    def _rendered(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        control: ControlTokens,
        disguised: set[int],
    ) -> list[Rendered | None]:
        """Render the examples; ``None`` stands for one that is left out."""
        found: list[Rendered | None] = []
        with self._renderer(tokenizer) as render:
            for number, one in enumerate(examples):
                try:
                    if number in disguised:
                        found.append(control.reveal(render(control.hide(one.messages))))
                    else:
                        found.append(render(one.messages))
                except ModelError as error:
                    if not self.skips:
                        raise RowError.of(error, one.id) from error
                    found.append(None)
        return found

    def _cut(self, ids: list[int], parts: np.ndarray) -> EncodedExample:
        import numpy as np

        limit = self.config.max_length
        kept = np.array(ids[:limit], dtype=np.int32)
        return EncodedExample(kept, parts[:limit], len(ids) > limit)

    def counts(self, parts: np.ndarray) -> np.ndarray:
        """Return which tokens count for the loss, bool, with the shape of ``parts``."""
        mask: np.ndarray = parts != Part.CONTEXT
        if self.config.loss_on == "responses":
            mask = parts == Part.RESPONSE
        elif self.config.mask_format:
            mask &= parts != Part.FORMAT
        return mask


def render_tulu(messages: Sequence[Message], eos: str) -> Rendered:
    """Return the Tulu format: ``<|role|>``, a line end, the text; an answer ends with ``eos``.

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


def answer_ends(parts: np.ndarray, starts: Sequence[int] | np.ndarray = (0,)) -> np.ndarray:
    """Return which tokens are the last of an answer, bool ``[tokens]``.

    It is the token that closes the answer, or the last remaining one if it was truncated.

    Args:
        parts: what each token is part of, for one example or several in a row.
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


def _encodings(
    texts: list[str], tokenizer: Tokenizer, *, special: bool
) -> Iterator[tuple[list[int], Encoding]]:
    batch = tokenizer(
        texts,
        add_special_tokens=special,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return zip(batch["input_ids"], batch.encodings, strict=True)


def _eos(tokenizer: Tokenizer) -> str:
    if not tokenizer.eos_token:
        raise ModelError(
            "the tokenizer has no end-of-sequence token, which closes every answer",
            hint='set [chat] template = "model" or use another checkpoint',
        )
    return tokenizer.eos_token

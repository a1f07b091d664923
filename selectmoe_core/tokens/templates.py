"""Rendering conversations with a Jinja chat template, and finding the answers in the result."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Self

from selectmoe_core.data.examples import Message, Part, Rendered, Span
from selectmoe_core.errors import DataError, ModelError
from selectmoe_core.tokens.time_limit import TimeLimit
from selectmoe_core.tokens.tokenizer import Tokenizer

MARK = "\ue000selectmoe\ue001"
"""Private-use characters that replace a turn's text, to find where a template puts it."""
MOST_BYTES = 1 << 20
"""A larger file is not a chat template: the longest known ones have about 30 kB."""
LEAVE_OUT = '[pool] on_reject = "skip" leaves such rows out, and [targets] the same of targets'
MOST_SECONDS = 5.0
"""Seconds of processor time for one conversation; a template takes milliseconds."""

Turns = list[dict[str, str]]


class RowError(ModelError):
    """A conversation cannot be rendered; ``example`` is the id of its example."""

    example = ""

    @classmethod
    def of(cls, error: ModelError, example: str) -> RowError:
        """Return the error about an example."""
        found = cls(str(error), hint=f"{error.hint}; {LEAVE_OUT}")
        found.example = example
        return found


def read_template(path: Path) -> str:
    """Return the text of a template file.

    Raises:
        DataError: it does not exist, is not a regular file, is too large, or is not UTF-8.
    """
    hint = "template is 'tulu', 'model' or a file with a Jinja chat template"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file"
        elif status.st_size > MOST_BYTES:
            what = (
                f"it has {status.st_size:,} bytes, but a template may have at most {MOST_BYTES:,}"
            )
        else:
            return path.read_text(encoding="utf-8")
    except OSError as error:
        what = error.strerror or str(error)
    except UnicodeDecodeError:
        what = "it is not UTF-8"
    except ValueError as error:  # a NUL in the path
        what = str(error)
    raise DataError(f"[chat]: cannot read the template {path}: {what}", hint=hint)


def answer_part(message: Message) -> Part:
    """Return the part of an answer's tokens: an answer with weight 0 is context."""
    return Part.RESPONSE if message.trained else Part.CONTEXT


class TemplateRenderer:
    """Renders conversations with a Jinja template, inside a ``with`` block.

    What an assistant turn adds after the generation prompt is the answer, except line ends after
    it; what another turn adds around its own text is format. If a template has no generation
    prompt, what it writes before the text of an answer is format too.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None, name: str) -> None:
        """Use the template's text, or with ``None`` the tokenizer's own; ``name`` is for errors."""
        if template is None and not tokenizer.chat_template:
            raise ModelError(
                "[chat] template = 'model', but this model's tokenizer has no chat template",
                hint='set [chat] template = "tulu", or name a file with a Jinja template',
            )
        if template is None and len(str(tokenizer.chat_template)) > MOST_BYTES:
            raise ModelError(
                f"{name} has {len(str(tokenizer.chat_template)):,} characters, but a template may "
                f"have at most {MOST_BYTES:,}",
                hint='set [chat] template = "tulu", or name a file with another template',
            )
        self.name = name
        self._tokenizer = tokenizer
        self._options = {} if template is None else {"chat_template": template}
        self._limit = TimeLimit(MOST_SECONDS)

    def __enter__(self) -> Self:
        self._limit.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        self._limit.__exit__(*error)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return a conversation as text with the parts of its characters.

        Raises:
            ModelError: the template cannot render it, or its answers cannot be trained on: they
                cannot be found in the text, are changed, or have no end.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        whole = self._text(turns)
        spans = []
        for index, message in enumerate(messages):
            if message.role == "assistant":
                start, stop = self._answer(turns, index, whole)
                if message.trained:
                    self._check_answer(whole[start:stop], message.content.strip())
                spans.append(Span(start, stop, answer_part(message)))
            elif span := self._question(turns, index, whole):
                spans.append(span)
        return Rendered(whole, tuple(spans))

    def _answer(self, turns: Turns, index: int, whole: str) -> tuple[int, int]:
        prompt = self._text(turns[:index], prompt=True)
        if not whole.startswith(prompt):
            self._refuse_prompt(turns[:index], prompt, whole)
        start = len(prompt)
        last = index + 1 == len(turns)
        stop = len(whole if last else self._prefix(self._text(turns[: index + 1]), whole))
        if self._has_no_prompt(turns[:index], prompt):
            head, mark, _ = self._text(_marked(turns, index)).partition(MARK)
            # The model writes the space between the prompt and the answer.
            if mark and whole.startswith(head) and whole[start : len(head)].strip():
                start = len(head)
        return start, start + len(whole[start:stop].rstrip("\n"))

    def _question(self, turns: Turns, index: int, whole: str) -> Span | None:
        head, _, tail = self._text(_marked(turns, index)).partition(MARK)
        start, stop = len(head), len(whole) - len(tail)
        # If a template changes a text so much that it is not found, the text counts as format.
        if start < stop and whole.startswith(head) and whole.endswith(tail):
            return Span(start, stop, Part.PROMPT)
        return None

    def _check_answer(self, answer: str, text: str) -> None:
        """Raise unless the trained part contains the answer's text and something that ends it."""
        if not text:
            return
        at = answer.find(text)
        if at < 0:
            raise ModelError(
                f"{self.name} changes the text of an answer: from {_short(text)} it "
                f"makes {_short(answer)}",
                hint='set [chat] template = "tulu", or name a file with another template',
            )
        if not answer[at + len(text) :].strip():
            raise ModelError(
                f"{self.name} writes no end after an answer, so a model trained on it would never "
                "learn to stop",
                hint="name a file with a template that ends each answer with {{ eos_token }}, or "
                'set [chat] template = "tulu"',
            )

    def _has_no_prompt(self, before: Turns, prompt: str) -> bool:
        """Return whether the template ignores ``add_generation_prompt``."""
        found = self._probed_without_prompt
        return prompt == self._text(before) if found is None else found

    @cached_property
    def _probed_without_prompt(self) -> bool | None:
        """Whether a simple conversation shows no generation prompt; ``None`` if that is unclear."""
        probe = [{"role": "user", "content": "a"}]
        try:
            return self._text(probe, prompt=True) == self._text(probe)
        except ModelError:
            return None

    def _refuse_prompt(self, before: Turns, prompt: str, whole: str) -> NoReturn:
        plain = self._text(before)
        if not (whole.startswith(plain) and prompt.startswith(plain)):
            self._prefix(prompt, whole)
        raise ModelError(
            f"{self.name} ends a prompt with {_short(prompt[len(plain) :])}, but its answers do "
            "not start there. Is it made for a model that thinks before it answers?",
            hint='set [chat] template = "tulu", or name a file with a template whose answers '
            "start with its generation prompt",
        )

    def _prefix(self, part: str, whole: str) -> str:
        if not whole.startswith(part):
            raise ModelError(
                f"{self.name} rewrites earlier turns when a later one is added, so its answers "
                "cannot be found in the text",
                hint='set [chat] template = "tulu", or name a template that only appends turns',
            )
        return part

    def _text(self, turns: Turns, *, prompt: bool = False) -> str:
        options = {"add_generation_prompt": prompt, **self._options}

        def apply() -> str:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, **options))

        hint = 'set [chat] template = "tulu", or name a file with another template'
        try:
            return self._limit.call(apply)
        except TimeoutError as error:
            raise ModelError(
                f"{self.name} was stopped: {error} for one conversation. Does it loop forever?",
                hint=hint,
            ) from None
        except Exception as error:  # a template is a program that others wrote
            roles = ", ".join(turn["role"] for turn in turns[:8]) + (", ..." * (len(turns) > 8))
            text = " ".join(f"{error or type(error).__name__}".split())[:300]
            raise ModelError(
                f"{self.name} cannot render a conversation of {roles}: {text}", hint=hint
            ) from error


def _marked(turns: Turns, index: int) -> Turns:
    return [*turns[:index], {**turns[index], "content": MARK}, *turns[index + 1 :]]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")

"""Templates of others: which part of an answer counts, and what is refused, by hand-made values."""

import os
import time

import pytest
from test_chat import CHATML, example, model_format, rendered_pieces, turns
from tokenizers_of import tokenizer_of

from selectmoe_core.data.examples import Message, Part
from selectmoe_core.errors import DataError, ModelError
from selectmoe_core.tokens import templates
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.time_limit import TimeLimit

HEADER = "{% for m in messages %}{{ '[' + m.role + ']\n' + m.content + '<end>\n' }}{% endfor %}"
"""Writes every turn alike and knows no generation prompt."""
VICUNA = (
    "{% for m in messages %}{{ 'USER: ' + m.content + ' ' if m.role == 'user' "
    "else 'ASSISTANT: ' + m.content + eos_token }}{% endfor %}"
)


def answers(template, messages):
    _, pieces = rendered_pieces(model_format(template), messages, tokenizer_of("bytes"))
    return [text for text, part in pieces if part == Part.RESPONSE]


@pytest.mark.parametrize("answer", ["four", "assistant", "[", "]", "[assistant]\nfour", "<end>"])
def test_a_header_is_format_where_there_is_no_generation_prompt(answer):
    messages = turns("two and two?", answer, "more", f"{answer} again")
    assert answers(HEADER, messages) == [f"{answer}<end>", f"{answer} again<end>"]


def test_a_header_on_the_answers_own_line_is_format_too():
    assert answers(VICUNA, turns("q", "a", "r", "b")) == ["a</s>", "b</s>"]


def test_with_a_generation_prompt_the_answer_is_all_that_follows_it():
    short = CHATML.replace(
        "'<|im_start|>assistant\n' }}{% endif %}", "'<|im_start|>' }}{% endif %}"
    )
    assert answers(short, turns("q", "a")) == ["assistant\na<|im_end|>"]


def test_a_template_that_refuses_the_probe_is_asked_with_the_row_itself():
    picky = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
        + HEADER
    )
    assert answers(picky, (Message("system", "s"), *turns("q", "a"))) == ["a<end>"]


NO_END = {
    "line end": "{{ m.role + ': ' + m.content + '\n' }}",
    "nothing": "{{ m.role + ': ' + m.content }}",
    "spaces": "{{ m.role + ': ' + m.content + '  \n\n' }}",
}


@pytest.mark.parametrize("turn", NO_END.values(), ids=NO_END)
@pytest.mark.parametrize("prompt", ["", "{% if add_generation_prompt %}assistant: {% endif %}"])
def test_an_answer_without_an_end_is_refused(turn, prompt):
    template = "{% for m in messages %}" + turn + "{% endfor %}" + prompt
    chat = model_format(template)
    with pytest.raises(ModelError, match=r"a file writes no end after an answer.*stop") as caught:
        chat.encode([example(turns("q", "a"))], tokenizer_of("bytes"))
    assert "eos_token" in caught.value.hint


def test_an_answer_that_is_not_written_as_it_is_is_refused():
    thinking = HEADER.replace("m.content", "m.content.split('</think>')[-1]")
    assert answers(thinking, turns("q", "a")) == ["a<end>"]
    with pytest.raises(ModelError, match=r"changes the text of an answer.*<think>"):
        answers(thinking, turns("q", "<think>x</think>a"))


def test_a_prompt_that_opens_a_thought_is_named():
    thinking = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
    with pytest.raises(ModelError, match=r"ends a prompt with .*<think>.*thinks before"):
        answers(thinking, turns("q", "a"))


LOOPS = {
    "counting": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "of text": "{% for i in range(99999) %}{% for j in range(99999) %}.{% endfor %}{% endfor %}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n-1) + f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_template_without_an_end_is_stopped_and_named(loop, monkeypatch):
    monkeypatch.setattr(templates, "MOST_SECONDS", 0.3)
    start = time.process_time()
    with pytest.raises(
        ModelError, match=r"chat template a file was stopped: it took more than 0.3 s"
    ):
        model_format(loop + CHATML).render(turns("q", "a"), tokenizer_of("bytes"))
    assert time.process_time() - start < 5


FAULTS = {
    "{{ 1 / 0 }}": "zero",
    "{{ messages.nothing.more }}": "nothing",
    "{% for %}": "Expected",
    "{{ messages[0].content + 1 }}": "str",
    "{{ range(10**9) }}": "(?i)range",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_template_raises_is_its_fault(fault):
    with pytest.raises(ModelError, match=FAULTS[fault]):
        model_format(fault + CHATML).render(turns("q", "a"), tokenizer_of("bytes"))


def test_only_what_takes_too_long_is_stopped():
    with TimeLimit(0.3) as limit:
        assert limit.call(lambda: 1) == 1
        time.sleep(0.6)  # not in a call
        limit.call(lambda: time.sleep(0.6))  # no processor time
        for _ in range(2):
            with pytest.raises(TimeoutError):
                limit.call(lambda: [None for _ in iter(int, 1)])
        assert sum(limit.call(lambda: range(1000))) == 499500


def device(path):
    path.symlink_to("/dev/zero")


def pipe(path):
    os.mkfifo(path)


NOT_TEMPLATES = {
    "device": (device, "not a regular file"),
    "pipe": (pipe, "not a regular file"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "large": (lambda path: path.write_bytes(b" " * ((1 << 20) + 1)), "1,048,577 bytes"),
    "latin": (lambda path: path.write_bytes(b"\xe9"), "not UTF-8"),
    "missing": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("kind", NOT_TEMPLATES)
def test_a_template_is_a_regular_file_of_a_stated_size(kind, tmp_path):
    make, says = NOT_TEMPLATES[kind]
    make(tmp_path / "chat.jinja")
    with pytest.raises(DataError, match=says):
        ChatFormat.load(ChatConfig(template=str(tmp_path / "chat.jinja")))


def test_a_path_with_a_nul_is_no_template():
    with pytest.raises(DataError, match="null"):
        ChatFormat.load(ChatConfig(template="a\0b"))


def test_the_models_own_template_has_a_limit_too():
    tokenizer = tokenizer_of("bytes")
    tokenizer.chat_template = CHATML + " " * (1 << 20)
    try:
        with pytest.raises(ModelError, match="1,048,5"):
            ChatFormat(ChatConfig(template="model")).render(turns("q", "a"), tokenizer)
    finally:
        tokenizer.chat_template = None

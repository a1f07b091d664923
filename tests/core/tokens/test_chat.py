"""Rendering and masks, against references that know nothing of offsets."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers_of import BOS, EOS, KINDS, tokenizer_of

from selectmoe_core.data.examples import Example, Message, Part, Rendered, Span, content_id
from selectmoe_core.errors import DataError, ModelError
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat, answer_ends, render_tulu
from selectmoe_core.tokens.spans import token_parts

FRAGMENTS = [
    *("the cat", " ", "  ", "        ", "\n", "\n\n", "\t", "x", "hello world", "what is two?"),
    *("def f(x):\n        return x", "é", "你好", "🙂", "\u2028", "\u00a0", EOS, BOS, "<|user|>"),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join)
PLAIN = st.lists(st.sampled_from(["the", " ", "cat", "x", "  ", "one", "\n", "é"])).map("".join)

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a user of a system<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') "
    "+ m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@st.composite
def conversations(draw, texts=TEXTS):
    turns = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message("user", draw(texts)), Message("assistant", draw(texts))]
    if draw(st.booleans()):
        turns.append(Message("user", draw(texts)))
    return tuple(turns)


def example(messages) -> Example:
    return Example(content_id(messages).hex(), "s", tuple(messages))


def turns(*texts: str) -> tuple[Message, ...]:
    roles = ("user", "assistant") * len(texts)
    return tuple(Message(role, text) for role, text in zip(roles, texts, strict=False))


def less_text(messages) -> str:
    """What LESS's encode_with_messages_format makes of messages, written anew."""
    out = ""
    for m in messages:
        if m.role == "assistant":
            out += "<|assistant|>\n" + m.content.strip() + EOS + "\n"
        else:
            out += f"<|{m.role}|>\n" + m.content.strip() + "\n"
    return out


def labelled_bytes(pieces) -> tuple[bytes, list[int]]:
    data, labels = b"", []
    for text, part in pieces:
        data += text.encode()
        labels += [int(part)] * len(text.encode())
    return data, labels


def tulu_pieces(messages):
    for m in messages:
        yield f"<|{m.role}|>\n", Part.FORMAT
        answer = m.role == "assistant"
        yield (
            m.content.strip() + (EOS if answer else ""),
            (Part.RESPONSE if answer else Part.PROMPT),
        )
        yield "\n", Part.FORMAT


def byte_alphabet() -> dict[str, int]:
    """GPT-2's map from a token's characters to bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {
        chr(256 + number): byte for number, byte in enumerate(moved)
    }


ALPHABET = byte_alphabet()


def walked_parts(tokens, pieces, *, byte_level: bool, added: int) -> list[int]:
    """Follow the tokens through the text byte by byte; no offsets are asked for."""
    data, labels = labelled_bytes(pieces)
    labels.append(Part.FORMAT)
    parts, at = [Part.FORMAT] * added, 0
    for token in tokens[added:]:
        if token in (BOS, EOS):
            piece = token.encode()
        elif byte_level:
            piece = bytes(ALPHABET[character] for character in token)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            piece = bytes([int(token[3:5], 16)])
        else:
            piece = token.replace("▁", " ").encode()
            if not data.startswith(piece, at):
                assert token.startswith("▁")
                piece = piece[1:]
        assert data.startswith(piece, at), (token, data[at : at + 20])
        at += len(piece)
        parts.append(labels[at - 1] if piece else labels[at])
    assert at == len(data)
    return [int(part) for part in parts]


@given(conversations())
def test_tulu_is_the_format_of_less(messages):
    rendered = render_tulu(messages, EOS)
    assert rendered.text == less_text(messages)
    labels = [0] * len(rendered.text)
    for span in rendered.spans:
        labels[span.start : span.stop] = [int(span.part)] * (span.stop - span.start)
    assert labels == [int(part) for text, part in tulu_pieces(messages) for _ in text]


def test_tulu_by_hand():
    messages = (Message("system", " s "), *turns("q\n", "", "r", "a"))
    assert render_tulu(messages, EOS).text == (
        "<|system|>\ns\n<|user|>\nq\n<|assistant|>\n</s>\n<|user|>\nr\n<|assistant|>\na</s>\n"
    )


def chatml_pieces(messages):
    if messages[0].role != "system":
        yield "<|im_start|>system\nYou are a user of a system<|im_end|>\n", Part.FORMAT
    for m in messages:
        answer = m.role == "assistant"
        yield f"<|im_start|>{m.role}\n", Part.FORMAT
        yield m.content, Part.RESPONSE if answer else Part.PROMPT
        yield "<|im_end|>", Part.RESPONSE if answer else Part.FORMAT
        yield "\n", Part.FORMAT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["tulu", "chatml"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much], deadline=None)
@given(data=st.data())
def test_token_parts_of_real_tokenizers(kind, template, data):
    texts = PLAIN if kind.startswith("unigram") else TEXTS
    messages = data.draw(conversations(texts))
    tokenizer = tokenizer_of(kind)
    tulu = template == "tulu"
    chat = ChatFormat(ChatConfig()) if tulu else model_format(CHATML)
    if kind == "bytes-trimmed":
        # Of a token such as "line end and spaces" only the line end is left by such a tokenizer.
        messages = tuple(Message(m.role, m.content.lstrip()) for m in messages)
    (encoded,) = chat.encode([example(messages)], tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    assume("<unk>" not in tokens)
    byte_level, added = kind.startswith("bytes"), int(tulu and kind.endswith("bos"))
    pieces = tulu_pieces(messages) if tulu else chatml_pieces(messages)
    assert encoded.parts.tolist() == walked_parts(
        tokens, pieces, byte_level=byte_level, added=added
    )
    assert not encoded.cut
    assert encoded.ids.dtype == np.int32
    assert (encoded.ids[0] == tokenizer.bos_token_id) == bool(added)


def test_tokens_of_no_character_by_hand():
    #            0123456789
    rendered = Rendered("ab  |cd x|", (Span(0, 4, Part.PROMPT), Span(5, 9, Part.RESPONSE)))
    tokens = [
        ((0, 0), True, Part.FORMAT),  # begin-of-sequence
        ((0, 2), False, Part.PROMPT),  # ab
        ((4, 4), False, Part.PROMPT),  # the two spaces, trimmed away to their end
        ((4, 5), False, Part.FORMAT),  # |
        ((5, 5), False, Part.RESPONSE),  # a word mark before cd
        ((5, 7), False, Part.RESPONSE),  # cd
        ((8, 9), False, Part.RESPONSE),  # " x", its space trimmed away
        ((9, 9), False, Part.FORMAT),  # a word mark before |
        ((9, 10), False, Part.FORMAT),  # |
        ((0, 0), True, Part.FORMAT),  # end-of-sequence that the tokenizer adds
    ]
    offsets, added, expected = (list(column) for column in zip(*tokens, strict=True))
    parts = token_parts(np.array(offsets), np.array(added), rendered)
    assert parts.tolist() == [int(part) for part in expected]
    none = token_parts(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=bool), rendered)
    assert none.tolist() == []


def less_labels(messages, tokenizer) -> list[bool]:
    """Which tokens LESS trains on: all but the prefix of each turn that is not an answer."""

    def length(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    labels = [True] * length(less_text(messages))
    for index, message in enumerate(messages):
        if message.role == "assistant":
            continue
        start = length(less_text(messages[:index])) if index else 0
        text = less_text(messages[: index + 1])
        if index + 1 < len(messages) and messages[index + 1].role == "assistant":
            text += "<|assistant|>\n"
        labels[start : length(text)] = [False] * (length(text) - start)
    return labels


@pytest.mark.parametrize("kind", ["bytes", "bytes-bos", "llama-bos"])
def test_the_mask_is_that_of_less_but_for_the_line_end_after_eos(kind):
    tokenizer = tokenizer_of(kind)
    messages = (Message("system", "Be brief."), *turns("what is two?", "x\n\n    y", "one", "z é"))
    (encoded,) = ChatFormat(ChatConfig()).encode([example(messages)], tokenizer)
    ours = encoded.parts == Part.RESPONSE
    theirs = np.array(less_labels(messages, tokenizer))
    tokens = np.array(tokenizer.convert_ids_to_tokens(encoded.ids.tolist()))
    assert (theirs >= ours).all()
    assert set(tokens[theirs & ~ours]) <= {"Ċ", "▁", "<0x0A>"}
    assert (tokens[ours] == EOS).sum() == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 2, 7, 12, 1000])
def test_max_length_cuts_the_end(kind, limit):
    messages = turns("what is two?", "    it is four")
    tokenizer = tokenizer_of(kind)
    (whole,) = ChatFormat(ChatConfig()).encode([example(messages)], tokenizer)
    (cut,) = ChatFormat(ChatConfig(max_length=limit)).encode([example(messages)], tokenizer)
    assert cut.ids.tolist() == whole.ids[:limit].tolist()
    assert cut.parts.tolist() == whole.parts[:limit].tolist()
    assert cut.cut == (len(whole.ids) > limit)
    (exact,) = ChatFormat(ChatConfig(max_length=len(whole.ids))).encode(
        [example(messages)], tokenizer
    )
    assert not exact.cut


def test_what_counts():
    parts = np.array([Part.FORMAT, Part.PROMPT, Part.RESPONSE, Part.FORMAT], dtype=np.uint8)
    for options, expected in (
        ({}, [0, 0, 1, 0]),
        ({"mask_format": True}, [0, 0, 1, 0]),
        ({"loss_on": "everything"}, [1, 1, 1, 1]),
        ({"loss_on": "everything", "mask_format": True}, [0, 1, 1, 0]),
    ):
        mask = ChatFormat(ChatConfig(**options)).counts(parts)
        assert mask.dtype == bool
        assert mask.tolist() == [bool(one) for one in expected]


def slow_ends(parts) -> list[bool]:
    """One example: the last token of every stretch of an answer."""
    found, inside = [False] * len(parts), False
    for place in reversed(range(len(parts))):
        answer = parts[place] == Part.RESPONSE
        found[place] = bool(answer and not inside)
        inside = answer
    return found


def test_an_answer_ends_with_its_last_token():
    end = [False, False, True, False, False, True]
    parts = [Part.PROMPT, Part.RESPONSE, Part.RESPONSE, Part.FORMAT, Part.RESPONSE, Part.RESPONSE]
    found = answer_ends(np.array(parts, dtype=np.uint8))
    assert found.dtype == bool
    assert found.tolist() == end
    assert answer_ends(np.zeros(0, np.uint8)).tolist() == []
    assert answer_ends(np.full(3, Part.PROMPT, np.uint8)).tolist() == [False] * 3


def test_answers_of_examples_behind_one_another_stay_apart():
    """One ends within its answer, the next begins with one: no token of another part between."""
    parts = np.array([1, 2, 2, 2, 2, 1, 2], dtype=np.uint8)
    for starts in ([0, 3], [0, 3, 7], np.array([0, 3, 3, 7], dtype=np.int32)):
        assert answer_ends(parts, starts).nonzero()[0].tolist() == [2, 4, 6]
    assert answer_ends(parts).nonzero()[0].tolist() == [4, 6]


def test_ends_of_joined_examples_are_those_of_each():
    random = np.random.default_rng()
    for _ in range(100):
        each = [
            random.choice([Part.FORMAT, Part.PROMPT, Part.RESPONSE], p=(0.2, 0.2, 0.6), size=size)
            for size in random.integers(0, 6, size=int(random.integers(1, 9)))
        ]
        starts = np.cumsum([0, *(len(one) for one in each)])
        wanted = [end for one in each for end in slow_ends(one)]
        for given_starts in (starts, starts[:-1]):
            assert answer_ends(np.concatenate(each), given_starts).tolist() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_ends_with_eos_or_where_it_was_cut(kind):
    tokenizer = tokenizer_of(kind)
    one = example(turns("what is two?", "it is four", "x", "hello world"))
    (whole,) = ChatFormat(ChatConfig()).encode([one], tokenizer)
    eos = [place for place, token in enumerate(whole.ids) if tokenizer.decode([token]) == EOS]
    assert answer_ends(whole.parts).nonzero()[0].tolist() == eos
    assert len(eos) == 2
    for limit in range(1, len(whole.ids)):
        (cut,) = ChatFormat(ChatConfig(max_length=limit)).encode([one], tokenizer)
        wanted = [place for place in eos if place < limit]
        if cut.parts[-1] == Part.RESPONSE and limit - 1 not in eos:
            wanted.append(limit - 1)
        assert answer_ends(cut.parts).nonzero()[0].tolist() == wanted


def rendered_pieces(chat, messages, tokenizer):
    rendered = chat.render(messages, tokenizer)
    return rendered.text, [(rendered.text[s.start : s.stop], s.part) for s in rendered.spans]


def model_format(template: str) -> ChatFormat:
    return ChatFormat(ChatConfig(template="a file"), template)


@given(conversations())
def test_chatml_marks_answers_with_their_end(messages):
    text, pieces = rendered_pieces(model_format(CHATML), messages, tokenizer_of(KINDS[0]))
    expected, wanted = "", []
    if messages[0].role != "system":
        expected = "<|im_start|>system\nYou are a user of a system<|im_end|>\n"
    for m in messages:
        expected += f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n"
        if m.role == "assistant":
            wanted.append((m.content + "<|im_end|>", Part.RESPONSE))
        elif m.content:
            wanted.append((m.content, Part.PROMPT))
    assert text == expected
    assert pieces == wanted


def test_a_prompt_that_reads_like_the_format_is_found_where_it_stands():
    for word in ("user", "system", "im_start", "You", "a", "<|im_end|>\n"):
        chat = model_format(CHATML)
        rendered = chat.render(turns(word, "yes"), tokenizer_of(KINDS[0]))
        prompt = next(span for span in rendered.spans if span.part == Part.PROMPT)
        before = rendered.text[: prompt.start]
        assert before.endswith("<|im_start|>user\n")
        assert rendered.text[prompt.start : prompt.stop] == word


def test_llama2_template_with_system_folded_into_the_first_turn():
    messages = (Message("system", "Be kind"), *turns(" q ", "a", "r", "b "))
    text, pieces = rendered_pieces(model_format(LLAMA2), messages, tokenizer_of("llama-bos"))
    assert text == (
        "<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nq [/INST] a </s><s>[INST] r [/INST] b </s>"
    )
    assert pieces == [
        *(("Be kind", Part.PROMPT), ("q", Part.PROMPT), (" a </s>", Part.RESPONSE)),
        *(("r", Part.PROMPT), (" b </s>", Part.RESPONSE)),
    ]


def test_a_template_brings_its_own_begin_of_sequence():
    tokenizer = tokenizer_of("llama-bos")
    (encoded,) = model_format(LLAMA2).encode([example(turns("q", "a"))], tokenizer)
    assert (encoded.ids == tokenizer.bos_token_id).sum() == 1
    assert encoded.parts[0] == Part.FORMAT
    counted = tokenizer.convert_ids_to_tokens(encoded.ids[encoded.parts == Part.RESPONSE].tolist())
    assert "".join(counted) == "▁a▁</s>"


def test_model_takes_the_tokenizers_own_template(tmp_path):
    messages = turns("q", "a")
    tokenizer = tokenizer_of(KINDS[0])
    chat = ChatFormat(ChatConfig(template="model"))
    with pytest.raises(ModelError, match="no chat template"):
        chat.render(messages, tokenizer)
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML, encoding="utf-8")
    from_file = ChatFormat.load(ChatConfig(template=str(file)))
    try:
        tokenizer.chat_template = CHATML
        assert chat.render(messages, tokenizer) == from_file.render(messages, tokenizer)
    finally:
        tokenizer.chat_template = None


def test_a_template_that_rewrites_earlier_turns_is_refused():
    rewriting = "{{ messages | length }}" + CHATML
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        model_format(rewriting).render(turns("q", "a", "r", "b"), tokenizer_of(KINDS[0]))
    only_last = (
        "{% for m in messages %}{{ m['content'] if loop.last or m['role'] == 'user' else '' }}"
        "{% endfor %}"
    )
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        model_format(only_last).render(turns("q", "a", "r", "b"), tokenizer_of(KINDS[0]))


def test_a_template_that_fails_says_so():
    with pytest.raises(ModelError, match=r"user, user, assistant.*must alternate"):
        model_format(LLAMA2).render(
            (Message("user", "q"), *turns("q", "a")), tokenizer_of(KINDS[0])
        )
    with pytest.raises(ModelError, match="cannot render"):
        model_format("{% for %}").render(turns("q", "a"), tokenizer_of(KINDS[0]))


def test_a_template_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        ChatFormat.load(ChatConfig(template=str(tmp_path / "none.jinja")))
    (tmp_path / "latin.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(DataError, match="not UTF-8"):
        ChatFormat.load(ChatConfig(template=str(tmp_path / "latin.jinja")))


def test_a_tokenizer_without_eos_or_without_offsets_is_refused():
    class Slow:
        eos_token, is_fast, chat_template = EOS, False, None

    class NoEos:
        eos_token, is_fast, chat_template = None, True, None

    chat = ChatFormat(ChatConfig())
    with pytest.raises(ModelError, match="slow tokenizer"):
        chat.encode([example(turns("q", "a"))], Slow())
    with pytest.raises(ModelError, match="no end-of-sequence"):
        chat.encode([example(turns("q", "a"))], NoEos())


def test_the_digest_covers_the_template_but_not_where_it_lies(tmp_path):
    plain = ChatFormat(ChatConfig()).digest
    one, other = (tmp_path / name for name in ("one.jinja", "other.jinja"))
    one.write_text(CHATML, encoding="utf-8")
    other.write_text(CHATML, encoding="utf-8")
    digests = [ChatFormat.load(ChatConfig(template=str(file))).digest for file in (one, other)]
    assert digests[0] == digests[1] != plain
    other.write_text(LLAMA2, encoding="utf-8")
    assert ChatFormat.load(ChatConfig(template=str(other))).digest != digests[0]
    assert ChatFormat(ChatConfig(max_length=7)).digest != plain


@pytest.mark.parametrize("template", [None, CHATML])
def test_a_prompt_is_what_comes_before_the_answer(template):
    tokenizer = tokenizer_of(KINDS[0])
    chat = ChatFormat(ChatConfig(template="file" if template else "tulu"), template)
    turns = [Message("user", "one"), Message("assistant", "two"), Message("user", " three ")]
    prompt = chat.prompt(turns, tokenizer)
    for answer in ("four", "5 or 6"):
        whole = chat.render([*turns, Message("assistant", answer)], tokenizer).text
        assert whole.startswith(prompt + answer)


WEIGHTED = (
    Message("user", "q"),
    Message("assistant", "wrong", trained=False),
    Message("user", "sure?"),
    Message("assistant", "right"),
)


@pytest.mark.parametrize("template", ["tulu", "chatml"])
@pytest.mark.parametrize("loss_on", ["responses", "everything"])
@pytest.mark.parametrize("mask_format", [False, True])
def test_an_answer_of_weight_0_is_read_and_not_trained_on(template, loss_on, mask_format):
    config = ChatConfig(template=template, loss_on=loss_on, mask_format=mask_format)
    chat = ChatFormat(config, None if template == "tulu" else CHATML)
    tokenizer = tokenizer_of(KINDS[0])
    plain = tuple(Message(m.role, m.content) for m in WEIGHTED)
    examples = [Example("0" * 32, "s", messages) for messages in (WEIGHTED, plain)]
    some, every = chat.encode(examples, tokenizer)
    assert some.ids.tolist() == every.ids.tolist()
    lost = chat.counts(every.parts) & ~chat.counts(some.parts)
    assert not (chat.counts(some.parts) & ~chat.counts(every.parts)).any()
    text = tokenizer.decode(some.ids[lost])
    assert text.startswith("wrong")
    assert "right" not in text
    assert "q" not in text
    kept = tokenizer.decode(some.ids[chat.counts(some.parts)])
    assert "right" in kept
    assert "wrong" not in kept

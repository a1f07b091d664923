"""Text of the data that reads like a control token stays text, under every kind of tokenizer."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chat import CHATML, EOS, LLAMA2, example, model_format, turns
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers_of import BOS, KINDS, tokenizer_of
from transformers import PreTrainedTokenizerFast

from selectmoe_core.data.examples import Message, Part
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.control import ControlTokens, control_tokens

TULU = ChatFormat(ChatConfig())
WORDS = ["the", " ", "cat", "<", "/s>", "x", "one", EOS, BOS, "<unk>", "s", "\U00100001", "two"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map("".join)


def decoded(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


def control_places(tokenizer, encoded) -> list[tuple[str, int]]:
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    return [
        (token, int(part))
        for token, part in zip(tokens, encoded.parts, strict=True)
        if token in (BOS, EOS)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_a_control_token_does_not_become_one(kind):
    tokenizer = tokenizer_of(kind)
    row = example(turns(f"the {BOS}cat{EOS}", f"it is{EOS} four {BOS}"))
    (encoded,) = TULU.encode([row], tokenizer)
    bos = [(BOS, int(Part.FORMAT))] if kind.endswith("bos") else []
    assert control_places(tokenizer, encoded) == [*bos, (EOS, int(Part.RESPONSE))]
    answer = decoded(tokenizer, encoded.ids[encoded.parts == Part.RESPONSE])
    if not kind.startswith("unigram"):  # it knows no sign "/"
        assert answer.replace(" ", "") == f"itis{EOS}four{BOS}{EOS}"


@pytest.mark.parametrize("kind", ["bytes", "bytes-bos", "llama-bos"])
@pytest.mark.parametrize("template", [CHATML, LLAMA2])
def test_nor_does_it_where_a_template_renders(kind, template):
    tokenizer = tokenizer_of(kind)
    sound, (row,) = turns("x y", "it is"), [example(turns(f"x{EOS} y", f"it{BOS} is"))]
    wanted, found = (
        model_format(template).encode([one], tokenizer)[0] for one in (example(sound), row)
    )
    assert control_places(tokenizer, found) == control_places(tokenizer, wanted)
    assert f"it{BOS} is" in decoded(tokenizer, found.ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(WORDS), max_size=6).map("".join), min_size=2, max_size=2
    )
)
def test_no_text_changes_the_number_of_control_tokens(kind, texts):
    tokenizer = tokenizer_of(kind)
    (encoded,) = TULU.encode([example(turns(texts[0], texts[1]))], tokenizer)
    found = [token for token, _ in control_places(tokenizer, encoded)]
    assert found == [BOS] * kind.endswith("bos") + [EOS]
    assert len(encoded.parts) == len(encoded.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_renamed_copy_tokenises_as_the_tokenizer_itself(kind):
    """Where a text holds no control token of its own, both ways give the same tokens."""
    tokenizer = tokenizer_of(kind)
    control = ControlTokens.of(tokenizer)
    rows = [turns("the cat  sat", "on the\nmat"), turns("x", "hello é")]
    for messages in rows:
        (plain,) = TULU.encode([example(messages)], tokenizer)
        revealed = control.reveal(TULU.render(control.hide(messages), tokenizer))
        assert EOS not in revealed.text
        ((ids, _),) = control.encode([revealed.text], tokenizer, special=True)
        assert ids == plain.ids.tolist()


def test_rows_with_and_without_such_text_keep_their_order():
    tokenizer = tokenizer_of("bytes")
    rows = [example(turns(text, "yes")) for text in ("a", EOS, "b", f"c{EOS}", "the")]
    alone = [TULU.encode([row], tokenizer)[0] for row in rows]
    for one, other in zip(TULU.encode(rows, tokenizer), alone, strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.parts, other.parts)


def test_a_system_row_is_covered_too():
    tokenizer = tokenizer_of("llama-bos")
    messages = (Message("system", f"be{EOS}"), *turns("q", "a"))
    (encoded,) = TULU.encode([example(messages)], tokenizer)
    assert [token for token, _ in control_places(tokenizer, encoded)] == [BOS, EOS]


def words(normalizer=None, **flags) -> PreTrainedTokenizerFast:
    """A Unigram over letters whose vocabulary lists its control token, as XLM-R has it."""
    pieces = [("<unk>", -9.0), (EOS, 0.0), *((letter, -3.0) for letter in "abx</s>|u:er")]
    backend = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens([AddedToken(EOS, normalized=False, **flags)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, unk_token="<unk>")


def test_text_that_is_normalised_to_a_control_token_stays_text_too():
    tokenizer = words(normalizers.NFKC())
    assert 1 in tokenizer("\uff1c/s\uff1e").input_ids  # the vocabulary itself holds it
    (encoded,) = TULU.encode([example(turns("a\uff1c/s\uff1e", "b"))], tokenizer)
    assert encoded.ids.tolist().count(1) == 1


def test_role_markers_count_though_they_are_not_marked_special():
    backend = Tokenizer.from_str(tokenizer_of("bytes").backend_tokenizer.to_str())
    backend.add_tokens(["<|user|>", "<\uff5cBot\uff5c>", "<think>", "  "])
    assert set(control_tokens(backend)) == {"<|user|>", "<\uff5cBot\uff5c>", EOS, BOS}


def test_a_merge_that_makes_a_control_token_is_left_out():
    letters = [*sorted(set("<|user|>\n<|assistant|>/")), "</", "s>", EOS]
    vocabulary = {text: place for place, text in enumerate(letters)}
    backend = Tokenizer(models.BPE(vocabulary, [("<", "/"), ("s", ">"), ("</", "s>")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)
    (encoded,) = TULU.encode([example(turns("a", f"a{EOS}a"))], tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids[encoded.parts == Part.RESPONSE].tolist())
    assert tokens == ["a", "</", "s>", "a", EOS]


def test_a_tokenizer_that_encoded_such_text_can_still_be_pickled():
    tokenizer = tokenizer_of("bytes")
    TULU.encode([example(turns(EOS, "a"))], tokenizer)
    assert pickle.loads(pickle.dumps(tokenizer)).eos_token == EOS

"""Encoded pools against a plain loop over the examples."""

import pickle
import random
from dataclasses import asdict

import numpy as np
import pytest
from random_rows import random_examples
from tokenizers_of import KINDS, tokenizer_of

from selectmoe_core.data.examples import Example, Message, Part
from selectmoe_core.tokens import encoding
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode


def reference_counts(examples, encoded, chat):
    counts = {}
    for example, one in zip(examples, encoded, strict=True):
        of = counts.setdefault(example.source, dict.fromkeys(COUNTED, 0))
        counted = sum(chat.counts(one.parts).tolist())
        of["examples"] += 1
        of["tokens"] += len(one.ids)
        of["counted_tokens"] += counted
        of["cut"] += one.cut
        of["nothing_counts"] += counted == 0
    return counts


COUNTED = ("examples", "tokens", "counted_tokens", "cut", "nothing_counts")


def assert_same(found: Encoded, examples, expected, chat) -> None:
    assert len(found) == len(expected)
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.ids.tolist() == other.ids.tolist() == found[row].ids.tolist()
        assert one.parts.tolist() == other.parts.tolist()
        assert one.cut is bool(other.cut)
    assert found.lengths.tolist() == [len(one.ids) for one in expected]
    assert found.tokens == sum(len(one.ids) for one in expected)
    assert found.cut.tolist() == [one.cut for one in expected]
    assert found.counted.tolist() == [int(chat.counts(one.parts).sum()) for one in expected]
    sources = {name: asdict(of) for name, of in found.sources.items()}
    assert sources == reference_counts(examples, expected, chat)
    assert list(sources) == sorted(sources)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"max_length": 20}, {"loss_on": "everything", "mask_format": True}]
)
def test_equal_to_encoding_one_by_one(tmp_path, monkeypatch, kind, options):
    rng = random.Random(f"{kind} {options}")
    monkeypatch.setattr(encoding, "BATCH", rng.choice([1, 3, 512]))
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", rng.choice([50, 1 << 22]))
    chat, tokenizer = ChatFormat(ChatConfig(**options)), tokenizer_of(kind)
    examples = random_examples(rng, 30)
    expected = [chat.encode([example], tokenizer)[0] for example in examples]
    advanced = []
    written = encode(iter(examples), tmp_path / "new", chat, tokenizer, advanced.append)
    assert sum(advanced) == 30
    assert written[0].ids.dtype == np.int32
    for found in (written, Encoded.open(tmp_path / "new", chat)):
        assert_same(found, examples, expected, chat)
    rows = rng.choices(range(30), k=12)
    view = written.take(rows)
    assert_same(view, [examples[r] for r in rows], [expected[r] for r in rows], chat)
    again = view.take(np.array([3, 3, 0]))
    picked = [rows[3], rows[3], rows[0]]
    assert_same(again, [examples[r] for r in picked], [expected[r] for r in picked], chat)
    assert_same(
        pickle.loads(pickle.dumps(view)),
        [examples[r] for r in rows],
        [expected[r] for r in rows],
        ChatFormat(ChatConfig(**options)),
    )
    assert len(pickle.dumps(written)) < 2000


def test_batch_mates_do_not_matter(tmp_path):
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes-trimmed")
    examples = random_examples(random.Random(4), 40)
    together = chat.encode(examples, tokenizer)
    for example, one in zip(examples, together, strict=True):
        (alone,) = chat.encode([example], tokenizer)
        assert alone.ids.tolist() == one.ids.tolist()
        assert alone.parts.tolist() == one.parts.tolist()


def test_nothing_is_an_encoding_too(tmp_path):
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")
    found = encode([], tmp_path, chat, tokenizer)
    assert (len(found), found.tokens, found.sources, found.lengths.tolist()) == (0, 0, {}, [])
    some = encode(random_examples(random.Random(1), 3), tmp_path / "some", chat, tokenizer)
    none = some.take([])
    assert (len(none), none.tokens, none.sources) == (0, 0, {})
    with pytest.raises(IndexError):
        none[0]


def test_rows_outside_are_refused(tmp_path):
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")
    found = encode(random_examples(random.Random(1), 3), tmp_path, chat, tokenizer)
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            found[wrong]
    for wrong in ([3], [-1], [0, 5]):
        with pytest.raises(IndexError, match="outside the 3"):
            found.take(wrong)
    assert found[-1].ids.tolist() == found[2].ids.tolist()
    assert found.take([2, 0])[-1].ids.tolist() == found[0].ids.tolist()


def test_an_example_whose_answer_was_cut_away_counts_nothing(tmp_path):
    chat = ChatFormat(ChatConfig(max_length=9))
    long = Example("0" * 32, "s", (Message("user", "the cat " * 20), Message("assistant", "x")))
    short = Example("1" * 32, "s", (Message("user", ""), Message("assistant", "x" * 90)))
    found = encode([long, short], tmp_path, chat, tokenizer_of("bytes"))
    of = found.sources["s"]
    assert (of.examples, of.tokens, of.cut, of.nothing_counts) == (
        2,
        18,
        2,
        2 - (of.counted_tokens > 0),
    )
    assert not (found[0].parts == Part.RESPONSE).any()

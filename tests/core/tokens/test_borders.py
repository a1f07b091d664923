"""Parts found at the borders alone, against every token's offsets (the slow plain reference)."""

import random
from functools import cache

import numpy as np
import pytest
from test_chat import CHATML, LLAMA2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers_of import BOS, EOS, KINDS, TEXT, tokenizer_of
from transformers import PreTrainedTokenizerFast

from selectmoe_core.data.examples import Example, Message, Part, Rendered, Span
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.spans import parts_at_borders, token_parts

FRAGMENTS = [
    *("the cat", " ", "  ", "        ", "\n", "\n\n", "\t", "x", "hello world", "what is two?"),
    *("def f(x):\n        return x", "é", "e\u0301\u0323", "\u0301", "你好", "🙂", "ﬁ"),
    *("👩‍👩‍👧", "½", "\u0344", "\u0958"),
    *("\u2028", "\u00a0", "\u200b", "\u0130", "한글", "ä", "1234", "-,-", EOS, BOS, "<|user|>"),
]
TEMPLATES = {"tulu": None, "chatml": CHATML, "llama2": LLAMA2}
PLAIN = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
NORMALIZERS = {
    "nfc": normalizers.NFC(),
    "nfd": normalizers.NFD(),
    "nfkc": normalizers.NFKC(),
    "bert": normalizers.BertNormalizer(strip_accents=True),
    "strip": normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()]),
    "spaces": normalizers.Sequence(
        [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Prepend("▁")]
    ),
}
PRE_TOKENIZERS = {
    "bert": pre_tokenizers.BertPreTokenizer(),
    "bytes": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "neox": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    ),
    "next": pre_tokenizers.Split(" ", "merged_with_next"),
    "whole": None,
}
ENDS = ("none", "both", "end", "trimmed", "roberta", "middle")


@cache
def trained(normalizer: str, pre_tokenizer: str, ends: str) -> PreTrainedTokenizerFast:
    """Return a BPE tokenizer with one of each kind of step, and tokens it adds itself."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=ends == "both"))
    backend.normalizer = NORMALIZERS.get(normalizer)
    backend.pre_tokenizer = PRE_TOKENIZERS[pre_tokenizer]
    special = ["<unk>", BOS, EOS]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, max_token_length=9, show_progress=False
    )
    backend.train_from_iterator([*TEXT, *FRAGMENTS], trainer)
    ids = [(token, backend.token_to_id(token)) for token in special[1:]]
    template = {"both": f"{BOS} {BOS} $A {EOS}", "end": f"$A {EOS}", "middle": f"$A {EOS} $A"}
    if ends in template:
        backend.post_processor = processors.TemplateProcessing(template[ends], None, ids)
    elif ends == "trimmed":
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    elif ends == "roberta":
        backend.post_processor = processors.RobertaProcessing(ids[1], ids[0], trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)


def plain_way(chat, examples, tokenizer):
    """Yield ids, parts and cut of each example from the offsets of all its tokens."""
    for one in examples:
        rendered, limit = chat.render(one.messages, tokenizer), chat.config.max_length
        special = chat.config.template == "tulu"
        batch = tokenizer([rendered.text], add_special_tokens=special, **PLAIN)
        offsets = np.array(batch["offset_mapping"][0], dtype=np.int64).reshape(-1, 2)
        added = np.array(batch["special_tokens_mask"][0], dtype=bool)
        parts = token_parts(offsets, added, rendered)[:limit].tolist()
        yield batch["input_ids"][0][:limit], parts, len(offsets) > limit


def random_text(rng: random.Random) -> str:
    """Text of data; what reads like a control token in it has tests of its own."""
    fragments = [text for text in FRAGMENTS if text not in (BOS, EOS)]
    return "".join(rng.choices(fragments, k=rng.choice([0, 1, 2, 5, 12])))


def conversation(rng: random.Random) -> Example:
    roles = ("user", "assistant") * rng.randrange(1, 4)
    turns = [Message(role, random_text(rng)) for role in roles]
    if rng.random() < 0.3:
        turns.insert(0, Message("system", random_text(rng)))
    return Example("0" * 32, "s", tuple(turns))


def assert_equal_to_the_plain_way(tokenizer, rng):
    for name, template in TEMPLATES.items():
        config = ChatConfig(
            template="tulu" if template is None else name,
            max_length=rng.choice([1, 9, 40, 2048]),
        )
        chat, examples = ChatFormat(config, template), [conversation(rng) for _ in range(40)]
        found = chat.encode(examples, tokenizer)
        for one, wanted in zip(found, plain_way(chat, examples, tokenizer), strict=True):
            assert (one.ids.tolist(), one.parts.tolist(), one.cut) == wanted
            assert (one.ids.dtype, one.parts.dtype) == (np.int32, np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_real_tokenizers(kind):
    assert_equal_to_the_plain_way(tokenizer_of(kind), random.Random())


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
@pytest.mark.parametrize("normalizer", ["none", *NORMALIZERS])
def test_every_kind_of_step(normalizer, pre_tokenizer, ends):
    assert_equal_to_the_plain_way(trained(normalizer, pre_tokenizer, ends), random.Random())


class Standing:
    """Tokens with hand-made offsets, where a real tokenizer gives no such thing on demand."""

    def __init__(self, offsets: list[tuple[int, int]]) -> None:
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def token_to_chars(self, token: int) -> tuple[int, int]:
        return self.offsets[token]

    def char_to_token(self, character: int) -> int | None:
        inside = (n for n, (a, b) in enumerate(self.offsets) if a <= character < b)
        return next(inside, None)


def test_random_offsets_that_never_go_back():
    rng, seen = random.Random(), set()
    for _ in range(4000):
        length, count = rng.randrange(1, 12), rng.randrange(0, 12)
        starts = sorted(rng.choices(range(length + 1), k=count))
        stops = sorted(rng.choices(range(length + 1), k=count))
        offsets = [(a, max(a, b)) for a, b in zip(starts, stops, strict=True)]
        borders = sorted(rng.choices(range(length + 1), k=4))
        answer = rng.choice([Part.RESPONSE, Part.CONTEXT])
        spans = (Span(*borders[:2], Part.PROMPT), Span(*borders[2:], answer))
        rendered = Rendered("x" * length, spans)
        array = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        wanted = token_parts(array, np.zeros(count, dtype=bool), rendered).tolist()
        assert parts_at_borders(Standing(offsets), 0, rendered).tolist() == wanted, offsets
        seen.update(wanted)
    assert seen == set(Part)

"""The texts of tokens: joined they are the text, whatever bytes the tokens hold."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selectmoe_core.tokens import token_texts


def of_bytes() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def of_words() -> PreTrainedTokenizerFast:
    """As Llama 2: a word carries the space before it, which the first one loses."""
    words = ["\u2581the", "\u2581cat", "s", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_the_space_before_a_word_is_kept():
    assert token_texts(of_words(), [0, 1, 2, 0, 1]) == ["the", " cat", "s", " the", " cat"]


def test_a_character_of_several_tokens_belongs_to_the_last_of_them():
    tokenizer = of_bytes()
    ids = tokenizer("a\u00e9\U0001f680b")["input_ids"]
    assert token_texts(tokenizer, ids) == ["a", "", "\u00e9", "", "", "", "\U0001f680", "b"]
    assert token_texts(tokenizer, []) == []


@pytest.mark.parametrize("seed", range(5))
def test_joined_they_are_the_text(seed):
    tokenizer, chance = of_bytes(), random.Random(seed)
    text = "".join(chance.choice("ab \n\u00df\u4e2d\U0001f44d\u0301") for _ in range(200))
    ids = tokenizer(text)["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text

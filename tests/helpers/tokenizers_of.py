"""Small real tokenizers of the kinds that models use, trained on the spot."""

from functools import cache

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
TEXT = [
    "<|system|>\nBe brief and kind.\n<|user|>\nWhat is two and two?\n<|assistant|>\nIt is four.",
    "def f(x):\n        return x + 1\n\n\nprint(f(2))   #  two  spaces",
    "Größe, naïve café; 你好, 世界! 🙂🙃 \u2028 next\tline \u00a0 x",
    "the cat sat on the mat and the dog ran after it, again and again and again",
    "<|im_start|>system\nYou are a user of a system<|im_end|>\n<|im_start|>assistant\n",
    "hello world, a test of what the tokenizer merges: one two three four five",
] * 3
KINDS = ("bytes", "bytes-trimmed", "bytes-bos", "unigram", "unigram-bos", "llama", "llama-bos")


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    family, _, extra = kind.partition("-")
    backend = {"bytes": _bytes, "unigram": _unigram, "llama": _llama}[family]()
    if extra == "bos":
        ids = [(BOS, backend.token_to_id(BOS))]
        backend.post_processor = processors.TemplateProcessing(f"{BOS} $A", None, ids)
    elif extra == "trimmed":  # as GPT-NeoX and OLMoE have it
        backend.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)


def _bytes() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return backend


def _unigram() -> Tokenizer:
    """As T5 and XLNet have it: metaspace, a word mark before every word."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=320,
        special_tokens=["<unk>", BOS, EOS],
        unk_token="<unk>",
        initial_alphabet=sorted(set("".join(TEXT))),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return backend


def _llama() -> Tokenizer:
    """As Llama 2 has it: no pre-tokenizer, a word mark before the text, unknown as bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    ascii_only = ["".join(c for c in line if c.isascii() and c != "\n") for line in TEXT]
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256))],
        max_token_length=8,
        show_progress=False,
    )
    backend.train_from_iterator(ascii_only, trainer)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend

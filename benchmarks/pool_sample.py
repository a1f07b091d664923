"""Examples of the real pool: their words, their lengths, and tokenizers trained on them.

A byte-level BPE trained on the pool gives a vocabulary of realistic size without any hub.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 2048
SOURCES = ("cot", "dolly", "flan_v2", "oasst1")
RECIPE_HEAD = f"""
format = 1
name = "{{name}}"
[chat]
max_length = 2048
[pool]
use = "less"
path = "{{data}}/less/train/processed"
sources = {json.dumps(SOURCES)}
subset_ratio = {{ratio}}
"""
"""What a recipe over some of the pool begins with."""


def conversations(data: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the file name, without its ending, and the messages of every example."""
    for file in sorted((data / "less/train/processed").glob("*/*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield file.stem, json.loads(line)["messages"]


def subset_ratio(data: Path, examples: int) -> float:
    """Return the share of the recipe's sources that so many examples are, 1 at most."""
    files = (data / f"less/train/processed/{name}/{name}_data.jsonl" for name in SOURCES)
    return min(1.0, examples / sum(file.read_bytes().count(b"\n") for file in files))


def repeated_pool(data: Path, out: Path, examples: int) -> Path:
    """Return a pool of at least so many examples: the data's own, or copies of it told apart.

    A copy's first message has its number behind it, so that no row is a duplicate of another.
    """
    rows = sum(len(_lines(data, name)) for name in SOURCES)
    copies = -(-examples // rows)
    if copies <= 1:
        return data
    for name in SOURCES:
        target = out / f"less/train/processed/{name}/{name}_data.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}")
        with part.open("w", encoding="utf-8") as file:
            for copy in range(copies):
                for line in _lines(data, name):
                    row = json.loads(line)
                    row["messages"][0]["content"] += f" ({copy})"
                    file.write(json.dumps(row) + "\n")
        part.replace(target)  # another command may be reading it
    return out


def _lines(data: Path, name: str) -> list[str]:
    file = data / f"less/train/processed/{name}/{name}_data.jsonl"
    return [line for line in file.read_text(encoding="utf-8").split("\n") if line]


def token_ids(data: Path, tokens: int, vocabulary: int, seed: int) -> tuple[list[np.ndarray], bool]:
    """Return token ids of a sample, about so many tokens, cut at 2048.

    Where there is no pool, lengths and ids are drawn instead, which is printed.

    Returns:
        An array an example, and whether they were drawn.
    """
    random = np.random.default_rng(seed)
    texts = [
        "\n".join(f"<|{m['role']}|>\n{m['content']}" for m in messages)
        for _, messages in conversations(data)
    ]
    if not texts:
        print(f"no pool at {data}: lengths and ids are drawn instead", flush=True)
        drawn = random.lognormal(5.0, 0.9, tokens // 200).clip(8, LONGEST)
        return [random.integers(0, vocabulary, int(length)) for length in drawn], True
    sample = [texts[row] for row in random.permutation(len(texts))[: tokens // 100]]
    bpe = _byte_level_bpe(sample, vocab_size=min(32000, vocabulary))
    rows = [np.array(one.ids[:LONGEST], dtype=np.int32) for one in bpe.encode_batch(sample)]
    total = np.cumsum([len(row) for row in rows])
    return rows[: int(np.searchsorted(total, tokens)) + 1], False


def spread_of(lengths: np.ndarray) -> dict[str, Any]:
    """Describe how long examples are."""
    return {
        "examples": len(lengths),
        "tokens": int(lengths.sum()),
        "percentiles_10_50_90_99": np.percentile(lengths, [10, 50, 90, 99]).tolist(),
    }


def tokenizer_of(texts: Iterable[str], size: int, **special: str) -> Any:  # noqa: ANN401
    """Return a tokenizer of transformers for any text; ``special`` as ``bos_token="<s>"``."""
    from tokenizers import decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bpe = _byte_level_bpe(
        texts,
        vocab_size=size,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special)


def make_tokenizer(data: Path, out: Path, size: int) -> None:
    """Write a tokenizer of the whole pool where there is none yet."""
    if not (out / "tokenizer.json").is_file():
        texts = (m["content"] for _, messages in conversations(data) for m in messages)
        special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        tokenizer_of(texts, size, **special).save_pretrained(out)


def _byte_level_bpe(texts: Iterable[str], **options: Any) -> Any:  # noqa: ANN401
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(texts, trainers.BpeTrainer(show_progress=False, **options))
    return bpe

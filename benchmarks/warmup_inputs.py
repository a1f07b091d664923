"""Shapes, the pool's token ids, and the machine's ceiling, for ``warmup.py``."""

import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

FULL: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
}
SMALL = FULL | {
    "hidden_size": 768,
    "intermediate_size": 384,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "vocab_size": 32000,
}
TINY = FULL | {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "vocab_size": 2048,
}
LONGEST = 2048


def machine(device: str) -> str:
    """Name the machine and the versions."""
    import transformers

    gpu = torch.cuda.get_device_name(0) if device == "cuda" else "no GPU"
    return (
        f"{gpu}, {os.cpu_count()} cores, python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}"
    )


def pool(data: Path, tokens: int, vocabulary: int, seed: int) -> list[np.ndarray]:
    """Return token ids of a sample of the pool, by a byte-level BPE trained on it.

    Where there is no pool, lengths and ids are drawn instead, which is printed.
    """
    random = np.random.default_rng(seed)
    texts = list(_examples(data))
    if not texts:
        print(f"no pool at {data}: lengths and ids are drawn instead", flush=True)
        drawn = random.lognormal(5.0, 0.9, tokens // 200).clip(8, LONGEST)
        return [random.integers(0, vocabulary, int(length)) for length in drawn]
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    sample = [texts[row] for row in random.permutation(len(texts))[: tokens // 100]]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    size = min(32000, vocabulary)
    bpe.train_from_iterator(sample, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    rows = [np.array(one.ids[:LONGEST]) for one in bpe.encode_batch(sample)]
    rows = [row for row in rows if len(row) > 3]
    total = np.cumsum([len(row) for row in rows])
    return rows[: int(np.searchsorted(total, tokens)) + 1]


def _examples(data: Path) -> Iterator[str]:
    for file in sorted((data / "less/train/processed").glob("*/*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                messages = json.loads(line)["messages"]
                yield "\n".join(f"<|{m['role']}|>\n{m['content']}" for m in messages)


def ceiling(device: str, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, the median of twenty."""
    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
    times = []
    for number in range(23):
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - begin)
    return 2 * size**3 / float(np.median(times))

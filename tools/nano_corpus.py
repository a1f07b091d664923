"""Text for the nano models: generated on all cores, tokenised into fixed rows."""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins"))

from selectmoe_nano import generator

VOCABULARY = 2048
PAD, END = "<|padding|>", "<|endoftext|>"
CHUNK = 10_000
"""Questions of one seed: few enough that small families keep their share of the text."""


def plain(instruction: str) -> str:
    """Return the prompt of the pretraining format."""
    return f"{instruction}\n"


def chat(instruction: str) -> str:
    """Return the prompt of the Tulu chat format."""
    return f"<|user|>\n{instruction}\n<|assistant|>\n"


@dataclass(frozen=True)
class Rows:
    """Examples as token rows.

    Attributes:
        ids: ``[examples, length]``, prompt, answer, end token, then padding.
        start: ``[examples]``, where the answer starts.
        stop: ``[examples]``, where the padding starts.
    """

    ids: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def join(cls, parts: Sequence["Rows"]) -> "Rows":
        """Put rows of equal length one after the other."""
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in cls.__annotations__))

    def trimmed(self) -> "Rows":
        """Leave out columns of padding, up to a multiple of eight."""
        return Rows(self.ids[:, : -(-int(self.stop.max()) // 8) * 8], self.start, self.stop)


def train_tokenizer(examples: int) -> Tokenizer:
    """Train the byte-level BPE on pool text of its own seed, the chat format and damage included.

    Digits are single tokens, so that numbers look alike at every length.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    items = generator.pool(examples, 0.2, seed=9_000_001)
    texts = (chat(item.instruction) + item.answer + "\n" for item in items)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(
    tokenizer: Tokenizer, prompts: Iterable[str], answers: Iterable[str], length: int,
    *, end: bool = True,
) -> tuple[Rows, np.ndarray]:  # fmt: skip
    """Tokenise pairs; return the rows that fit ``length`` and the indices of those examples."""
    first = tokenizer.encode_batch_fast(list(prompts))
    second = tokenizer.encode_batch_fast(list(answers))
    pad, stop_id = tokenizer.token_to_id(PAD), tokenizer.token_to_id(END)
    assert pad is not None
    assert stop_id is not None
    ids = np.full((len(first), length), pad, dtype=np.int16)
    bounds = np.zeros((len(first), 2), dtype=np.int16)
    kept = []
    for i, (prompt, answer) in enumerate(zip(first, second, strict=True)):
        row = prompt.ids + answer.ids + ([stop_id] if end else [])
        if len(row) <= length:
            ids[i, : len(row)] = row
            bounds[i] = len(prompt.ids), len(row)
            kept.append(i)
    where = np.array(kept, dtype=np.int64)
    return Rows(ids[where], bounds[where, 0], bounds[where, 1]), where


def _chunk(task: tuple[str, int, float, int]) -> Rows:
    """Generate and tokenise one chunk; the share of chat prompts is spread evenly over it."""
    tokenizer_json, seed, chat_share, length = task
    tokenizer = Tokenizer.from_str(tokenizer_json)
    questions = [question for _, question in islice(generator.stream(seed), CHUNK)]
    every = [int((i + 1) * chat_share) > int(i * chat_share) for i in range(len(questions))]
    prompts = [
        (chat if as_chat else plain)(question.instruction)
        for question, as_chat in zip(questions, every, strict=True)
    ]
    return encode(tokenizer, prompts, [q.answer for q in questions], length)[0]


def corpus(
    tokenizer: Tokenizer, examples: int, chat_share: float, length: int, seed: int, workers: int
) -> Rows:
    """Return about ``examples`` rows for pretraining; none of them is a held-out question.

    Workers are forked, so call it before a GPU is used.
    """
    text = tokenizer.to_str()
    chunks = max(1, round(examples / CHUNK))
    tasks = [(text, seed + i, chat_share, length) for i in range(chunks)]
    if workers == 1:
        return Rows.join([_chunk(task) for task in tasks]).trimmed()
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as executor:
        return Rows.join(list(executor.map(_chunk, tasks))).trimmed()

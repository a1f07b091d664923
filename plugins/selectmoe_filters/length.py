"""The filter ``length``."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from selectmoe_core import Example, Job, Marks, StageError
from selectmoe_core.data import Part, Pool
from selectmoe_core.tokens import Encoded
from selectmoe_filters.config import BOUNDS, LengthConfig

BLOCK = 1 << 14
"""Rows whose lengths are counted together."""


class Length:
    """Marks examples whose lengths are out of bounds; see ``LengthConfig``."""

    def __init__(self, config: LengthConfig) -> None:
        self.config = config

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the rows that are too short or too long; the first bound gives the reason."""
        encoded = self._encoded(job) if self.config.unit == "tokens" else None
        reasons: list[str] = []
        codes = [np.empty(0, dtype=np.int32)]
        with job.progress.task("length", len(pool)) as advance:
            for start in range(0, len(pool), BLOCK):
                stop = min(start + BLOCK, len(pool))
                examples = list(pool.examples(start, stop))
                codes.append(self._codes(_lengths(examples, encoded, start), reasons))
                advance(stop - start)
        found = np.concatenate(codes)
        rows = np.flatnonzero(found)
        texts = pa.array(reasons, pa.string())
        return Marks.left_out(
            rows, pa.DictionaryArray.from_arrays(pa.array(found[rows] - 1), texts)
        )

    def _encoded(self, job: Job) -> Encoded:
        if job.inputs.model is None:
            raise StageError("a length in tokens needs a model", hint="add model to the table")
        return job.encoded(job.models.tokenizer(job.inputs.model))

    def _codes(self, lengths: dict[str, np.ndarray], reasons: list[str]) -> np.ndarray:
        """Return for each example 0, or one more than the place of its reason in ``reasons``."""
        codes = np.zeros(len(lengths["turns"]), dtype=np.int32)
        for reason, bad in self._violations(lengths):
            if reason not in reasons:
                reasons.append(reason)
            codes[bad & (codes == 0)] = reasons.index(reason) + 1
        return codes

    def _violations(self, lengths: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        for name in BOUNDS:
            low, high = self.config.bounds(name)
            unit = "" if name == "turns" else f" {self.config.unit}"
            if low is not None:
                yield f"{name} shorter than {low:,}{unit}", lengths[name] < low
            if high is not None:
                yield f"{name} longer than {high:,}{unit}", lengths[name] > high


def _lengths(examples: list[Example], encoded: Encoded | None, start: int) -> dict[str, np.ndarray]:
    """Return the length of each part of each example, int64 ``[examples]``."""
    talk = [sum(m.role != "system" for m in example.messages) for example in examples]
    if encoded is None:
        counted = [_characters(example) for example in examples]
        prompt, answer, total = np.array(counted, dtype=np.int64).reshape(-1, 3).T
    else:
        joined = encoded.joined(np.arange(start, start + len(examples)))
        prompt = joined.sums((joined.parts == Part.PROMPT) | (joined.parts == Part.CONTEXT))
        answer = joined.sums(joined.parts == Part.RESPONSE)
        total = joined.lengths
    turns = np.array(talk, dtype=np.int64)
    return {"prompt": prompt, "answer": answer, "total": total, "turns": turns}


def _characters(example: Example) -> tuple[int, int, int]:
    """Return the characters of all but the trained answers, of these, and of everything."""
    total = sum(len(message.content) for message in example.messages)
    answers = (m for m in example.messages if m.role == "assistant" and m.trained)
    answer = sum(len(message.content) for message in answers)
    return total - answer, answer, total

"""The examination as it is shipped: one JSON object per line, for lm-eval."""

import json
from collections.abc import Iterator
from typing import Any

from selectmoe_nano.generator import ExamQuestion, exam

PER_FAMILY = 26
SEED = 0


def lines() -> Iterator[str]:
    """Yield the lines of ``tasks/nano.jsonl``: 26 unseen questions of each of the 48 families."""
    for number, question in enumerate(exam(PER_FAMILY, SEED)):
        yield json.dumps(_document(question, number), ensure_ascii=False)


def _document(question: ExamQuestion, number: int) -> dict[str, Any]:
    return {"id": f"{question.family}-{number % PER_FAMILY}", **question._asdict()}

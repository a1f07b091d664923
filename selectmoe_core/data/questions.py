"""What an evaluation asks, kept so that filters can look for it in the pool."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.errors import StageError
from selectmoe_core.store import replacing

FORMAT = 1
"""Of the file of questions; another number makes it, and all that reads it, again."""
QUESTIONS = "questions.parquet"
SCHEMA = pa.schema(
    [("task", pa.string()), ("text", pa.string()), ("answers", pa.list_(pa.string()))]
)
GROUP = 4096
"""Questions held in memory and written at once."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that an evaluation asks.

    Attributes:
        task: the task that it belongs to.
        text: what the model is asked, without solved examples before it.
        answers: the choices, or the expected answers.
    """

    task: str
    text: str
    answers: tuple[str, ...] = ()


def write_questions(folder: Path, questions: Iterable[Question]) -> dict[str, int]:
    """Write questions by rename; return how many each task has."""
    counts: dict[str, int] = {}
    with (
        replacing(folder / QUESTIONS, alone=True) as temporary,
        pq.ParquetWriter(temporary, SCHEMA) as file,
    ):
        rows: list[dict[str, object]] = []
        for question in questions:
            counts[question.task] = counts.get(question.task, 0) + 1
            answers = list(question.answers)
            rows.append({"task": question.task, "text": question.text, "answers": answers})
            if len(rows) == GROUP:
                file.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows.clear()
        file.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return counts


def read_questions(folder: Path) -> Iterator[Question]:
    """Yield the questions of a finished artifact.

    Raises:
        StageError: the file is missing or damaged.
    """
    path = folder / QUESTIONS
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(GROUP):
                for row in batch.to_pylist():
                    yield Question(row["task"], row["text"], tuple(row["answers"]))
    except (OSError, pa.ArrowInvalid) as error:
        raise StageError(
            f"{path} is missing or damaged: {error}",
            hint=f"remove the folder {folder} to have it made again",
        ) from None

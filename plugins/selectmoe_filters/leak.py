"""The filter ``leak``: runs of words that questions of the evaluation and the pool share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from selectmoe_core import Example, Job, Marks, Question, StageError, read_questions
from selectmoe_core.data import Pool
from selectmoe_filters.config import LeakConfig
from selectmoe_filters.openings import Openings, Run
from selectmoe_filters.texts import words


@dataclass
class Found:
    """Where a run of words occurs in the questions.

    Attributes:
        task: the first task with it, by name.
        questions: how many questions have it.
        last: the number of the last question with it.
    """

    task: str
    questions: int = 0
    last: int = field(default=-1)


class Leak:
    """Marks examples that hold a part of a question; see ``LeakConfig``."""

    def __init__(self, config: LeakConfig) -> None:
        self.config = config

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the rows that share a run of words with a question, with the question's task."""
        if job.inputs.questions is None:
            raise StageError("there are no questions to look for", hint="add a table [evaluate]")
        wanted = by_opening(
            question_runs(read_questions(job.inputs.questions), self.config), self.config.shortest
        )
        rows: list[int] = []
        reasons: list[str] = []
        openings = Openings(wanted, self.config.shortest)
        start = 0
        with job.progress.task("leak", len(pool)) as advance:
            for batch in pool.batches():
                likely = start + openings.rows(batch)
                for row, example in zip(likely.tolist(), pool.take(likely), strict=True):
                    task = self._task(example, wanted)
                    if task is not None:
                        rows.append(row)
                        reasons.append(f"holds a part of a question of {task}")
                start += len(batch)
                advance(len(batch))
        return Marks.left_out(np.array(rows, dtype=np.int64), reasons)

    def _task(self, example: Example, wanted: dict[Run, list[tuple[Run, str]]]) -> str | None:
        """Return the task whose question an example holds a part of, the first by name."""
        size = self.config.shortest
        tasks = set()
        for message in example.messages:
            own = words(message.content)
            for start in range(len(own) - size + 1):
                for run, task in wanted.get(tuple(own[start : start + size]), ()):
                    if tuple(own[start + size : start + len(run)]) == run[size:]:
                        tasks.add(task)
        return min(tasks, default=None)


def question_runs(questions: Iterable[Question], config: LeakConfig) -> dict[Run, str]:
    """Return the runs of words to look for, each with its task.

    A run that more than ``common`` questions have is left out.
    """
    found: dict[Run, Found] = {}
    for number, question in enumerate(questions):
        for text in _texts(question, config):
            for run in _runs(words(text), config):
                known = found.setdefault(run, Found(question.task))
                known.task = min(known.task, question.task)
                if known.last != number:
                    known.last = number
                    known.questions += 1
    common = config.common or None
    return {
        run: known.task
        for run, known in found.items()
        if common is None or known.questions <= common
    }


def by_opening(runs: dict[Run, str], size: int) -> dict[Run, list[tuple[Run, str]]]:
    """Return runs by their first words, so that one look finds runs of every length."""
    openings: dict[Run, list[tuple[Run, str]]] = {}
    for run, task in runs.items():
        openings.setdefault(run[:size], []).append((run, task))
    return openings


def _texts(question: Question, config: LeakConfig) -> Sequence[str]:
    return (question.text, *question.answers) if config.answers else (question.text,)


def _runs(own: list[str], config: LeakConfig) -> Iterator[Run]:
    if config.shortest <= len(own) < config.ngram:
        yield tuple(own)
    for start in range(len(own) - config.ngram + 1):
        yield tuple(own[start : start + config.ngram])

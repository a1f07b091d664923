"""The reader ``lm-eval``: questions of tasks that are not evaluated, with their right answers."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from lm_eval.api.task import Task

from selectmoe_core import Job, Message, RawExample, RecipeError, Reject
from selectmoe_lmeval.config import LmEvalTargetsConfig
from selectmoe_lmeval.evaluator import careful_templates
from selectmoe_lmeval.harness import quiet
from selectmoe_lmeval.held_back import keep_held_back
from selectmoe_lmeval.tasks import leaves, load_tasks

NOT_EVALUATED = 'use another split, or hold questions back: split = "held-back" here, and '
NOT_EVALUATED += "held_back = N in [evaluate]"


class LmEvalTargets:
    """Reads target examples; see ``LmEvalTargetsConfig``."""

    def __init__(self, config: LmEvalTargetsConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Load the tasks and look for the split.

        Raises:
            RecipeError: an unknown task, or one without such a split.
            StageError: the data of a task is not available.
        """
        for _ in islice(self.read(job), 1):
            pass

    def read(self, job: Job) -> Iterator[RawExample | Reject]:
        """Yield the examples of every task; the source is the task's name."""
        plain = self.config.evaluation
        with quiet(job, None), careful_templates(plain), _of_targets():
            for task in leaves(load_tasks(plain, job.bundled_tasks)):
                yield from self._examples(task, job.seed)

    def _examples(self, task: Task, seed: int) -> Iterator[RawExample | Reject]:
        count = self.config.examples
        if self.config.split == "held-back":
            keep_held_back(task, count)
            chosen = list(task.eval_docs)
        else:
            rows = list(self._split(task))
            order = random.Random(f"{seed} {task.task_name}").sample(range(len(rows)), len(rows))
            chosen = [rows[place] for place in sorted(order[:count])]
        for number, document in enumerate(chosen, start=1):
            yield _example(task, document, f"{task.task_name}:{number}")

    def _split(self, task: Task) -> Iterable[Any]:
        """Return the documents to choose from.

        Raises:
            RecipeError: the task has no such split, or it is the one that is evaluated.
        """
        tests = task.has_test_docs()
        asked = task.config.test_split if tests else task.config.validation_split
        there = {
            "validation": tests and task.has_validation_docs(),
            "train": task.has_training_docs(),
            "fewshot": task.config.fewshot_split not in (None, asked),
        }
        wanted = self.config.split
        found = [name for name, has in there.items() if has] if wanted == "auto" else [wanted]
        if not found or not there[found[0]]:
            what = "no split that is not evaluated" if wanted == "auto" else f"no split '{wanted}'"
            if wanted == "validation" and task.has_validation_docs():
                what = "evaluates its validation split"
            does = "has " if what.startswith("no ") else ""
            raise RecipeError(
                f"[targets] lm-eval: the task '{task.task_name}' {does}{what}", hint=NOT_EVALUATED
            )
        documents: dict[str, Any] = {
            "validation": task.validation_docs,
            "train": task.training_docs,
            "fewshot": task.fewshot_docs,
        }
        found_documents: Iterable[Any] = documents[found[0]]()
        return found_documents


def _example(task: Task, document: Any, where: str) -> RawExample | Reject:  # noqa: ANN401
    choices = list(task.doc_to_choice(document)) if task.config.doc_to_choice is not None else []
    text, target = task.doc_to_text(document), task.doc_to_target(document)
    if isinstance(text, int):  # the choices are beginnings of one sentence, as in winogrande
        prompt, answer = choices[text], target
    else:
        prompt, answer = text, target
    answer = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(answer, int) and choices:
        answer = choices[answer] if answer < len(choices) else ""
    if not str(prompt).strip() or not str(answer).strip():
        return Reject(task.task_name, where, "the question or its answer is empty")
    messages = (Message("user", str(prompt).strip()), Message("assistant", str(answer).strip()))
    return RawExample(task.task_name, messages, where=where)


@contextmanager
def _of_targets() -> Iterator[None]:
    """Let errors of the tasks name the table that they are about."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(str(error).replace("[evaluate]", "[targets]"), hint=error.hint) from error

"""Questions that are not asked, so that they can be target examples."""

import random
from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import Task

from selectmoe_core import RecipeError


def held_back(task: Task, count: int) -> list[int]:
    """Return the rows of the evaluated split that are held back, the same in every run.

    With a larger count the rows of a smaller one come first.

    Raises:
        RecipeError: nothing would be left to ask.
    """
    rows = len(_split(task))
    if count >= rows:
        raise RecipeError(
            f"[evaluate] lm-eval: held_back = {count}, but the task '{task.task_name}' has {rows} "
            "questions",
            hint="hold back fewer, or leave the task out",
        )
    order = list(range(rows))
    random.Random(f"held back from {task.task_name}").shuffle(order)
    return order[:count]


def hold_back(task: Task, count: int) -> None:
    """Take questions away from a task, before it is asked."""
    gone = set(held_back(task, count))
    _keep(task, [row for row in range(len(_split(task))) if row not in gone])


def keep_held_back(task: Task, count: int) -> None:
    """Leave a task nothing but what ``hold_back`` takes away."""
    _keep(task, held_back(task, count))


def _name(task: Task) -> str:
    config: Any = task.config
    return str(config.test_split if task.has_test_docs() else config.validation_split)


def _split(task: Task) -> Sequence[Any]:
    rows: Sequence[Any] = task.dataset[_name(task)]
    return rows


def _keep(task: Task, rows: list[int]) -> None:
    task.dataset[_name(task)] = task.dataset[_name(task)].select(rows)

"""Questions that are not asked, so that they can be target examples."""

import random
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from lm_eval.api.task import Task

from selectmoe_core import RecipeError

WORD = re.compile(r"\w+")
FEW = 8
"""Words from which on a question that is a part of another one counts as asked by it."""


def held_back(task: Task, count: int) -> list[int]:
    """Return the rows of the evaluated split that are held back, the same in every run.

    With a larger count the rows of a smaller one come first. A question that another one asks too,
    or holds, or is a part of, is never held back, because it would still be asked.

    Raises:
        RecipeError: nothing would be left to ask.
    """
    texts = _texts(task)
    order = list(range(len(texts)))
    random.Random(f"held back from {task.task_name}").shuffle(order)
    found = list(islice((row for row in order if _alone(row, texts)), count))
    if len(found) < count or count >= len(texts):
        raise RecipeError(
            f"[evaluate] lm-eval: held_back = {count}, but the task '{task.task_name}' has "
            f"{len(texts)} questions, and {len(found)} that no other one asks too",
            hint="hold back fewer, or leave the task out",
        )
    return found


def hold_back(task: Task, count: int) -> None:
    """Take questions away from a task, before it is asked."""
    gone = set(held_back(task, count))
    _keep(task, [row for row in range(len(_split(task))) if row not in gone])


def keep_held_back(task: Task, count: int) -> None:
    """Leave a task nothing but what ``hold_back`` takes away."""
    _keep(task, held_back(task, count))


def _texts(task: Task) -> list[str]:
    """Return the words of each question of the evaluated split, without case and marks.

    Where a question is no text, or the task makes other documents of its rows, it has a name.
    """
    names = [f"row {row}" for row in range(len(_split(task)))]
    documents = list(task.eval_docs)
    if len(documents) != len(names):
        return names
    texts = [task.doc_to_text(document) for document in documents]
    return [
        " ".join(WORD.findall(text.casefold())) if isinstance(text, str) else name
        for text, name in zip(texts, names, strict=True)
    ]


def _alone(row: int, texts: Sequence[str]) -> bool:
    """Return whether no other question has the same words, or shares a long text with it."""
    own = f" {texts[row]} "
    long = own.count(" ") > FEW
    for place, text in enumerate(texts):
        other = f" {text} "
        shares = (long and own in other) or (other.count(" ") > FEW and other in own)
        if place != row and (own == other or shares):
            return False
    return True


def _name(task: Task) -> str:
    config: Any = task.config
    return str(config.test_split if task.has_test_docs() else config.validation_split)


def _split(task: Task) -> Sequence[Any]:
    rows: Sequence[Any] = task.dataset[_name(task)]
    return rows


def _keep(task: Task, rows: list[int]) -> None:
    task.dataset[_name(task)] = task.dataset[_name(task)].select(rows)

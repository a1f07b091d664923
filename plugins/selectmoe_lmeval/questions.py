"""What a task asks, as text: for filters that look for it in the pool."""

from collections.abc import Iterator
from typing import Any

from lm_eval.api.task import Task

from selectmoe_core import Question


def asked(task: Task) -> Iterator[Question]:
    """Yield the questions of the split that is evaluated, without solved examples before them."""
    for document in task.eval_docs:
        choices = _texts(task.doc_to_choice(document)) if _has_choices(task) else []
        text = task.doc_to_text(document)
        target = _texts(task.doc_to_target(document))
        if isinstance(text, int):  # the choices are beginnings of one sentence, as in winogrande
            whole = [f"{choice} {end}" for choice in choices for end in target]
            yield Question(task.task_name, whole[0] if whole else "", tuple(whole[1:]))
        else:
            yield Question(task.task_name, str(text), tuple(dict.fromkeys([*choices, *target])))


def _has_choices(task: Task) -> bool:
    return bool(getattr(task.config, "doc_to_choice", None))


def _texts(value: Any) -> list[str]:  # noqa: ANN401
    """Return the texts of an answer: a number points at a choice, which stands beside it."""
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []

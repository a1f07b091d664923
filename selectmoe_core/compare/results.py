"""The results of all arms, task by task and question by question, as the evaluations left them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.errors import StageError
from selectmoe_core.report.evaluation import AGREEMENT, damaged_result, sample_values
from selectmoe_core.store import Artifact


@dataclass(frozen=True)
class Task:
    """One task in all arms.

    Attributes:
        name: its name.
        metric: what is measured.
        chance: what guessing gives; ``None`` where that is unknown.
        questions: how many there are.
        higher: whether more is better.
        share: whether it is a share of right answers, to be shown in per cent.
        values: the reported results by arm, one for each seed.
        answers: by arm the metric of every question, ``[seeds, questions]``, the questions in one
            order; an arm is missing where its evaluation kept no answers that agree with its
            result.
    """

    name: str
    metric: str
    chance: float | None
    questions: int | None
    higher: bool
    share: bool
    values: Mapping[str, tuple[float, ...]]
    answers: Mapping[str, np.ndarray] = field(repr=False)


def read_tasks(evaluations: Mapping[str, Sequence[Artifact]]) -> list[Task]:
    """Return the tasks that every arm has a result of.

    Args:
        evaluations: the finished evaluations by arm, one for each seed.

    Raises:
        StageError: there is no task that all arms have.
    """
    every = [artifact for found in evaluations.values() for artifact in found]
    names = [name for name in _top_tasks(every[0]) if all(_value(one, name) for one in every)]
    if not names:
        raise StageError(
            "the arms have no task in common",
            hint="compare runs that were evaluated on the same tasks",
        )
    return [_task(name, evaluations) for name in names]


def left_out(evaluations: Mapping[str, Sequence[Artifact]], tasks: Sequence[Task]) -> list[str]:
    """Return the tasks that only some arms have a result of."""
    known = {task.name for task in tasks}
    found = (name for arm in evaluations.values() for one in arm for name in _top_tasks(one))
    return [name for name in dict.fromkeys(found) if name not in known]


def _task(name: str, evaluations: Mapping[str, Sequence[Artifact]]) -> Task:
    values = {
        arm: tuple(float(_facts(one, name)["value"]) for one in found)
        for arm, found in evaluations.items()
    }
    first = _facts(next(iter(evaluations.values()))[0], name)
    higher = bool(first.get("higher_is_better", True))
    seen = [value for of_arm in values.values() for value in of_arm]
    return Task(
        name=name,
        metric=str(first.get("metric", "")),
        chance=first.get("chance"),
        questions=first.get("questions"),
        higher=higher,
        share=higher and all(0 <= value <= 1 for value in seen),
        values=values,
        answers=_answers(name, str(first.get("metric", "")), evaluations),
    )


def _answers(
    name: str, metric: str, evaluations: Mapping[str, Sequence[Artifact]]
) -> dict[str, np.ndarray]:
    """Return the answers of the arms that answered the same questions as the first one."""
    found: dict[str, np.ndarray] = {}
    order: list[str] | None = None
    for arm, artifacts in evaluations.items():
        rows = []
        for artifact in artifacts:
            answers = _of_task(artifact, name, metric)
            order = sorted(answers) if order is None and answers else order
            if sorted(answers) == order and _agrees(answers, _facts(artifact, name)["value"]):
                rows.append([answers[question] for question in order])
        if rows and len(rows) == len(artifacts):
            found[arm] = np.array(rows)
    return found


def _agrees(answers: Mapping[str, float], value: float) -> bool:
    """Return whether the answers are those that a reported result is the mean of."""
    return abs(float(np.mean(list(answers.values()))) - value) <= AGREEMENT


def _of_task(artifact: Artifact, name: str, metric: str) -> dict[str, float]:
    """Return the metric of each question of a task, or of all tasks of a group."""
    own = sample_values(artifact.folder, name, metric)
    if own:
        return own
    leaves = list(_leaves(name, _groups(artifact.folder)))
    return {
        f"{leaf}|{question}": value
        for leaf in leaves
        if leaf != name
        for question, value in sample_values(artifact.folder, leaf, metric).items()
    }


def _groups(folder: Path) -> Mapping[str, Sequence[str]]:
    """Return the tasks of each group, as lm-eval's results name them."""
    for path in sorted(folder.glob("results_*.json")):
        with damaged_result(path):
            found = json.loads(path.read_text(encoding="utf-8")).get("group_subtasks", {})
            return {name: list(children) for name, children in found.items() if children}
    return {}


def _leaves(name: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if name not in groups:
        yield name
    for child in groups.get(name, ()):
        yield from _leaves(child, groups)


def _top_tasks(artifact: Artifact) -> list[str]:
    """Return the tasks that are no part of a group that has a result itself."""
    tasks = artifact.facts.get("tasks", {})
    groups = _groups(artifact.folder)
    parts = {
        part
        for group, children in groups.items()
        if group in tasks
        for child in children
        for part in (child, *_leaves(child, groups))
    }
    return [name for name in tasks if name not in parts]


def _facts(artifact: Artifact, name: str) -> Mapping[str, Any]:
    return artifact.facts["tasks"][name]  # type: ignore[no-any-return]


def _value(artifact: Artifact, name: str) -> bool:
    facts = artifact.facts.get("tasks", {}).get(name, {})
    value = facts.get("value")
    return isinstance(value, int | float) and bool(np.isfinite(value))


def mean_result(artifact: Artifact) -> float | None:
    """Return the mean result over the tasks of an evaluation of which more is better."""
    tasks = [_facts(artifact, name) for name in _top_tasks(artifact) if _value(artifact, name)]
    values = [float(facts["value"]) for facts in tasks if facts.get("higher_is_better", True)]
    return float(np.mean(values)) if values else None

"""The check of an evaluator: results with their errors, the same every time."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.data.questions import Question
from selectmoe_core.models.models import ModelRef, Models, TargetModel
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.declared import declared
from selectmoe_core.plugin.protocols import Evaluator, Inputs, Job
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import Facts
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.requirement import errors_of, require, require_facts


def check_evaluator(
    component: Component[Any, Any],
    *,
    model: str | Path,
    options: Mapping[str, object] | None = None,
    adapter: Path | None = None,
    models: Models | None = None,
    job: Job | None = None,
) -> Facts:
    """Evaluate a small model twice, and check the contract.

    The facts hold ``tasks``: for each a metric, a finite value, a standard error or ``None``, the
    number of questions, and the value of guessing or ``None``. Two evaluations are equal. If the
    component declares ``questions``, it can give what it asks.

    Args:
        component: the evaluator.
        model: a small model, a folder or a reference.
        options: as a recipe would write them: few questions.
        adapter: an adapter of this model to evaluate.
        models: the loader; by default the installed plugins' models.
        job: the job with device and dtype; its inputs are replaced.

    Returns:
        The facts of the evaluation.

    Raises:
        AssertionError: says what the evaluator did, and what the core expects.
    """
    name = component.name
    config = checked(component, Kind.EVALUATOR, options)
    registry = _installed()
    target = TargetModel(ModelRef(str(model)), adapter)
    base = (job or Job(seed=1)).changed(
        models=models or registry.models,
        bundled_tasks=registry.bundled_tasks,
        inputs=Inputs(model=target.base),
    )
    with tempfile.TemporaryDirectory() as place, errors_of(name):
        own = declared(base.changed(scratch=Path(place) / "scratch"), component, config)
        part = built(component, config, Evaluator)
        facts: Facts = part.evaluate(target, Path(place) / "first", own)
        require_facts(name, "evaluate", facts)
        _check_tasks(name, facts)
        again = component.build(config).evaluate(target, Path(place) / "second", own)
        require(facts["tasks"] == again["tasks"], f"{name}: a second evaluation differs")
        if component.questions is not None:
            _check_questions(name, part, own)
    return facts


def _installed() -> Registry:
    from selectmoe_core.plugin.manager import load_plugins

    return Registry(load_plugins())


def _check_tasks(name: str, facts: Facts) -> None:
    tasks = facts.get("tasks")
    require(isinstance(tasks, Mapping) and tasks, f"{name}: evaluate() must return 'tasks'")
    for task, entry in facts["tasks"].items():
        where = f"{name}: the task {task}"
        require(isinstance(entry.get("metric"), str), f"{where} names no 'metric'")
        require(_is_number(entry.get("value")), f"{where} has no finite 'value'")
        stderr, chance = entry.get("stderr"), entry.get("chance")
        fits = stderr is None or (_is_number(stderr) and stderr >= 0)
        require(fits, f"{where}: 'stderr' must be a number or None, got {stderr!r}")
        fits = chance is None or _is_number(chance)
        require(fits, f"{where}: 'chance' must be a number or None, got {chance!r}")
        questions = entry.get("questions")
        fits = isinstance(questions, int) and questions > 0
        require(fits, f"{where}: 'questions' must be their number, got {questions!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_questions(name: str, part: Any, job: Job) -> None:  # noqa: ANN401
    asked = list(part.questions(job))
    require(asked, f"{name}: questions() yields nothing")
    for question in asked:
        require(isinstance(question, Question), f"{name}: questions() yields {question!r}")

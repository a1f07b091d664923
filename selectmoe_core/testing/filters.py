"""The check of a filter: the same marks of the same examples, in whatever order they stand."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.config import Config
from selectmoe_core.data.examples import Example
from selectmoe_core.data.marks import Marks
from selectmoe_core.data.questions import Question, write_questions
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Filter, Job
from selectmoe_core.testing.components import built, checked
from selectmoe_core.testing.pools import Bench, generated_examples, installed_models
from selectmoe_core.testing.requirement import errors_of, require

Found = tuple[dict[str, str], frozenset[frozenset[str]]]
"""Reasons by id, and the groups as sets of ids."""


def check_filter(
    component: Component[Any, Any],
    *,
    options: Mapping[str, object] | None = None,
    examples: Sequence[Example] | None = None,
    questions: Sequence[Question] = (Question("sums", "What is two and two?", ("four",)),),
    model: str | None = None,
    job: Job | None = None,
) -> None:
    """Run a filter over a small pool, and check the contract.

    Each row is marked once, with a reason or a group. Two runs give the same marks; they depend
    neither on the order of the rows nor on the seed, unless the component says ``seeded``.

    Args:
        component: the filter.
        options: as a recipe would write them.
        examples: all different; without, generated ones of one or more turns.
        questions: what a filter that needs questions finds.
        model: a model for a filter that needs one, a folder or hub id.
        job: seed and device to run with; its inputs are replaced.

    Raises:
        AssertionError: what the filter did, and what the core relies on.
    """
    config = checked(component, Kind.FILTER, options)
    rows = list(examples) if examples is not None else generated_examples()
    base = job or Job(seed=1)
    if model is not None:
        base = base.changed(models=installed_models())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder, questions)
        given = ModelRef(model) if model else None, folder

        def marked(place: str, rows: list[Example], base: Job) -> Found:
            return _marked(component, config, Bench(folder / place, rows), base, given)

        first = marked("first", rows, base)
        _same(component, first, marked("again", rows, base), "run a second time")
        _same(component, first, marked("moved", rows[::-1], base), "with the rows in another order")
        if not component.seeded:
            other = marked("seeded", rows, replace(base, seed=base.seed + 1))
            _same(component, first, other, "with another seed (or say seeded=True)")


def _marked(
    component: Component[Any, Any],
    config: Config,
    bench: Bench,
    base: Job,
    given: tuple[ModelRef | None, Path],
) -> Found:
    model, questions = given
    job = bench.job(component, config, base, model, questions=questions)
    part, name = built(component, config, Filter), component.name
    with errors_of(name):
        marks = part.mark(bench.pool, job)
    require(isinstance(marks, Marks), f"{name}: mark() gave a {type(marks).__name__}, not Marks")
    problem = marks.problem(len(bench.pool))
    require(problem is None, f"{name}: {problem}")
    ids = [bench.examples[row].id for row in np.asarray(marks.rows).tolist()]
    texts, numbers = marks.texts().to_pylist(), marks.numbers.tolist()
    groups: dict[int, set[str]] = {}
    for example, number in zip(ids, numbers, strict=True):
        groups.setdefault(number, set()).add(example)
    reasons = {example: text for example, text in zip(ids, texts, strict=True) if text is not None}
    return reasons, frozenset(frozenset(own) for number, own in groups.items() if number >= 0)


def _same(component: Component[Any, Any], first: Found, second: Found, what: str) -> None:
    require(first == second, f"{component.name}: {what}, it marks other rows")

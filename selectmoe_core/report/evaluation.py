"""The evaluation table: the results of the arms, and what their differences show."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.errors import StageError
from selectmoe_core.report.summary import Difference, EvaluationSummary, Result, TaskRow
from selectmoe_core.report.wording import measured, signed
from selectmoe_core.store import Artifact

NAMED_ARMS = ("base", "random", "selected")
BASELINES = ("random", "base")
"""The arms that the own arm is compared with, the most important first."""
NOISE_ERRORS = 1.959964
"""Differences within this many standard errors decide nothing: their 95 % interval holds 0."""
CHANCE_ERRORS = 2.0
"""Results less than this many standard errors above chance count as chance."""
AGREEMENT = 1e-3
"""The largest accepted difference between the mean of the samples and the reported value."""


def order_arms(arms: Sequence[str]) -> tuple[str, ...]:
    """Return arms in column order: base, random, selected, then the others in their order."""
    named = [arm for arm in NAMED_ARMS if arm in arms]
    return tuple(dict.fromkeys([*named, *arms]))


def summarise_evaluation(arms: Mapping[str, Artifact], own: str) -> EvaluationSummary | None:
    """Return all tasks in all arms, with the differences between ``own`` and the baselines."""
    order = order_arms(tuple(arms))
    tasks = dict.fromkeys(task for arm in order for task in arms[arm].facts.get("tasks", {}))
    rows = tuple(_row(task, arms, order, own) for task in tasks)
    if not rows:
        return None
    mean = _mean_row(rows, order, own)
    return EvaluationSummary(order, (*rows, mean) if mean else rows)


def _row(task: str, arms: Mapping[str, Artifact], order: Sequence[str], own: str) -> TaskRow:
    found = {arm: arms[arm].facts["tasks"][task] for arm in order if task in _tasks(arms[arm])}
    first = next(iter(found.values()))
    facts = {
        arm: result for arm, result in found.items() if _number(result.get("value")) is not None
    }
    chance, metric = first.get("chance"), str(first.get("metric", ""))
    higher = bool(first.get("higher_is_better", True))
    results = {arm: _result(arm, result, chance, higher=higher) for arm, result in facts.items()}
    differences = []
    for baseline in BASELINES:
        if baseline != own and {own, baseline} <= set(results):
            pair = (arms[own].folder, arms[baseline].folder)
            values = (results[own].value, results[baseline].value)
            paired = paired_stderr(*pair, task=task, metric=metric, values=values)
            differences.append(
                compare(results[own], results[baseline], paired, task, higher=higher)
            )
    questions = first.get("questions")
    return TaskRow(task, metric, chance, questions, higher, results, tuple(differences))


def _tasks(artifact: Artifact) -> Mapping[str, Any]:
    return artifact.facts.get("tasks", {})  # type: ignore[no-any-return]


def _result(arm: str, facts: Mapping[str, Any], chance: float | None, *, higher: bool) -> Result:
    value, stderr = float(facts["value"]), _number(facts.get("stderr"))
    at_chance = False
    if chance is not None and stderr is not None:
        above = value - chance if higher else chance - value
        at_chance = above <= CHANCE_ERRORS * stderr
    return Result(arm, value, stderr, facts.get("questions"), at_chance)


def _number(value: object) -> float | None:
    # lm-eval writes the text "N/A" if it has no standard error.
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def compare(
    own: Result, baseline: Result, paired: float | None, task: str, *, higher: bool = True
) -> Difference:
    """Return the difference of two arms with its standard error and a verdict in plain words.

    Unpaired, the standard error is ``sqrt(se_a**2 + se_b**2)``, which is too wide if both arms
    answered the same questions; so the paired one is used if it exists.
    """
    difference = own.value - baseline.value
    stderr = paired
    if stderr is None and own.stderr is not None and baseline.stderr is not None:
        stderr = math.hypot(own.stderr, baseline.stderr)
    both_at_chance = own.at_chance and baseline.at_chance
    verdict = _verdict(own.arm, baseline.arm, task, difference, stderr, higher, both_at_chance)
    return Difference(baseline.arm, difference, stderr, paired is not None, verdict)


def _verdict(
    own: str,
    baseline: str,
    task: str,
    difference: float,
    stderr: float | None,
    higher: bool,
    both_at_chance: bool,
) -> str:
    claim = f"{task}: {own} minus {baseline} is {signed(difference, stderr)}"
    if stderr is None:
        return f"{claim}, without a standard error: no verdict"
    if both_at_chance:
        return f"{claim}, but both are at chance: no verdict"
    if abs(difference) <= stderr:
        return f"{claim}, within one standard error: no verdict"
    if abs(difference) <= NOISE_ERRORS * stderr:
        return f"{claim}, within two standard errors: no verdict"
    word = "beats" if (difference > 0) == higher else "loses to"
    return (
        f"{task}: {own} {word} {baseline} by {measured(abs(difference), stderr)}, more than two "
        "standard errors on these questions, in this one training run"
    )


def _mean_row(rows: Sequence[TaskRow], order: Sequence[str], own: str) -> TaskRow | None:
    """Return the mean over tasks, if every task is an accuracy and every arm has it."""
    complete = all(row.chance is not None and set(row.results) == set(order) for row in rows)
    if len(rows) < 2 or not complete or not all(row.higher_is_better for row in rows):
        return None
    chance = sum(row.chance or 0.0 for row in rows) / len(rows)
    questions = [row.questions for row in rows]
    total = sum(n or 0 for n in questions) if all(questions) else None
    results = {}
    for arm in order:
        value = sum(row.results[arm].value for row in rows) / len(rows)
        facts = {"value": value, "questions": total}
        facts["stderr"] = _mean_error([row.results[arm].stderr for row in rows])
        results[arm] = _result(arm, facts, chance, higher=True)
    differences = []
    for number, first in enumerate(rows[0].differences):
        of_tasks = [row.differences[number] for row in rows]
        error = (
            _mean_error([d.stderr for d in of_tasks]) if all(d.paired for d in of_tasks) else None
        )
        differences.append(
            compare(results[own], results[first.baseline], error, "the mean of the tasks")
        )
    return TaskRow("mean of the tasks", "", chance, total, True, results, tuple(differences))


def _mean_error(errors: Sequence[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if len(known) == len(errors) else None


def paired_stderr(
    own: Path, baseline: Path, *, task: str, metric: str, values: tuple[float, float]
) -> float | None:
    """Return the standard error of the mean difference per question, or ``None``.

    It needs the samples of both arms (``samples_<task>*.jsonl``, as lm-eval writes them), over
    the same questions, whose means agree with the reported ``values``.
    """
    first, second = (sample_values(folder, task, metric) for folder in (own, baseline))
    if len(first) < 2 or set(first) != set(second):
        return None
    pairs = np.array([[first[key], second[key]] for key in first])
    if np.abs(pairs.mean(axis=0) - values).max() > AGREEMENT:
        return None
    differences = pairs[:, 0] - pairs[:, 1]
    return float(differences.std(ddof=1) / math.sqrt(len(differences)))


def sample_values(folder: Path, task: str, metric: str) -> dict[str, float]:
    """Return the metric of each question by its id; empty if there are no samples.

    Raises:
        StageError: a file of samples is damaged.
    """
    name = metric.split(",", maxsplit=1)[0]
    pattern = re.compile(rf"samples_{re.escape(task)}(_\d{{4}}-.*)?\.jsonl")
    found: dict[str, float] = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):
        if not pattern.fullmatch(path.name):
            continue
        with damaged_result(path), path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if name not in row:
                    return {}
                key = f"{row.get('doc_id')}|{row.get('doc_hash', '')}"
                found[key] = float(row[name])
    return found


@contextmanager
def damaged_result(path: Path) -> Iterator[None]:
    """Turn what fails while a file of an evaluation is read into an error that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StageError(
            f"{path} is damaged: {error}",
            hint="evaluate again: run the recipe again with --fresh evaluate",
        ) from None

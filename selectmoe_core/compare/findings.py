"""What a comparison found: every arm's result with an interval, and its difference to random."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from selectmoe_core.compare.results import Task
from selectmoe_core.compare.statistics import Estimate, estimate, holm
from selectmoe_core.compare.verdicts import Verdict, judge
from selectmoe_core.report.evaluation import CHANCE_ERRORS

MEAN = "mean"
"""The key of an arm's mean over tasks."""


@dataclass(frozen=True)
class Contender:
    """An arm as its results are judged.

    Attributes:
        label: how tables name it.
        role: ``strategy``, or the baseline it is.
        reference: the label of the arm it is compared with; empty for none.
    """

    label: str
    role: str
    reference: str


@dataclass(frozen=True)
class Figure:
    """One arm on one task, or on the mean of tasks.

    Attributes:
        value: its result, the mean over the seeds.
        low: lower end of the 95 % interval; ``None`` where the evaluation kept no answers.
        high: upper end.
        difference: to the reference; ``None`` for the reference itself, or without answers.
        plain: the difference of the results alone, where there is a reference.
        at_chance: whether it is not above guessing by two standard errors of the questions.
    """

    value: float
    low: float | None
    high: float | None
    difference: Estimate | None
    plain: float | None
    at_chance: bool


@dataclass(frozen=True)
class Result:
    """One arm.

    Attributes:
        contender: the arm.
        seeds: how many trainings it has.
        figures: by task, and under ``mean`` over those that the verdict is about.
        verdict: what may be said of it beside its reference; ``None`` where there is none.
    """

    contender: Contender
    seeds: int
    figures: Mapping[str, Figure]
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Findings:
    """All arms.

    Attributes:
        results: in the order of the arms.
        tasks: the tasks.
        judged: the tasks that the verdict is about: those that count right answers, or else the
            first one.
        family: how many comparisons the adjusted p-values allow for.
    """

    results: tuple[Result, ...]
    tasks: tuple[Task, ...] = field(repr=False)
    judged: tuple[Task, ...] = field(repr=False)
    family: int


def find(contenders: Sequence[Contender], tasks: Sequence[Task]) -> Findings:
    """Return every arm's figures, and a verdict for each that has a reference.

    The p-values of the verdicts are adjusted for their number (Holm). The base model gets none: it
    is no selection.
    """
    judged = tuple(task for task in tasks if task.share) or tuple(tasks[:1])
    results = []
    for contender in contenders:
        figures = {task.name: _figure(contender, [task]) for task in tasks}
        figures[MEAN] = _figure(contender, judged)
        seeds = len(tasks[0].values[contender.label])
        results.append(Result(contender, seeds, figures))
    tested = [one for one in results if _asked(one) and one.figures[MEAN].difference is not None]
    p_values = holm([_difference(one).p_value for one in tested])
    adjusted = {one.contender.label: p for one, p in zip(tested, p_values, strict=True)}
    return Findings(_judged(results, judged[0], adjusted), tuple(tasks), judged, len(tested))


def _asked(result: Result) -> bool:
    return bool(result.contender.reference) and result.contender.role != "base"


def _judged(
    results: Sequence[Result], task: Task, adjusted: Mapping[str, float]
) -> tuple[Result, ...]:
    """Return the results with a verdict where one is asked for."""
    chance = {one.contender.label: one.figures[MEAN].at_chance for one in results}
    found = []
    for one in results:
        label, reference, mean = one.contender.label, one.contender.reference, one.figures[MEAN]
        verdict = None
        if _asked(one):
            verdict = judge(
                label,
                reference,
                mean.plain or 0.0,
                mean.difference,
                adjusted.get(label),
                points=task.share,
                higher=task.higher,
                at_chance=mean.at_chance and chance[reference],
                family=len(adjusted),
            )
        found.append(replace(one, verdict=verdict))
    return tuple(found)


def _difference(result: Result) -> Estimate:
    found = result.figures[MEAN].difference
    assert found is not None
    return found


def _figure(contender: Contender, tasks: Sequence[Task]) -> Figure:
    arm, reference = contender.label, contender.reference
    value = _value(arm, tasks)
    own = None
    if all(arm in task.answers for task in tasks):
        own = estimate([task.answers[arm] for task in tasks])
    difference = None
    if own is not None and reference and all(reference in task.answers for task in tasks):
        pairs = [(task.answers[arm], task.answers[reference]) for task in tasks]
        if all(_paired(*pair) for pair in pairs):
            difference = estimate([first - second for first, second in pairs])
    plain = value - _value(reference, tasks) if reference else None
    low, high = _ends(own, share=tasks[0].share)
    return Figure(value, low, high, difference, plain, _at_chance(own, tasks))


def _ends(own: Estimate | None, *, share: bool) -> tuple[float | None, float | None]:
    """Return the ends of an arm's interval; a share lies between 0 and 1."""
    if own is None:
        return None, None
    return (max(own.low, 0.0), min(own.high, 1.0)) if share else (own.low, own.high)


def _at_chance(own: Estimate | None, tasks: Sequence[Task]) -> bool:
    """Return whether an arm may have guessed, by the noise of the questions alone.

    The noise of two or three seeds says too little to doubt a result far above chance.
    """
    chances = [task.chance for task in tasks if task.chance is not None]
    if own is None or len(chances) < len(tasks):
        return False
    return own.value - float(np.mean(chances)) <= CHANCE_ERRORS * own.question_error


def _value(arm: str, tasks: Sequence[Task]) -> float:
    return float(np.mean([np.mean(task.values[arm]) for task in tasks]))


def _paired(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether seeds stand beside seeds, or beside a model that has none."""
    return first.shape[1] == second.shape[1] and (
        first.shape[0] == second.shape[0] or 1 in (first.shape[0], second.shape[0])
    )

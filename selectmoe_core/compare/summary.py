"""All that a comparison says, as plain values: every output is made from it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from selectmoe_core.compare.chosen import Overlap
from selectmoe_core.compare.costs import PARTS, ArmCost, more_random_data
from selectmoe_core.compare.findings import MEAN, Figure, Findings, Result
from selectmoe_core.compare.results import Task
from selectmoe_core.compare.verdicts import Verdict

VERSION = 1
"""Of ``compare.json``; another number says that a field changed its meaning or is gone."""
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Summary:
    """A comparison.

    Attributes:
        name: the recipe's name.
        findings: the arms' figures and verdicts.
        costs: what each arm cost, by label; arms of past runs may have none.
        notes: what stands above the result.
        seeds: the seeds of the trainings.
        command: the command line.
        started: ISO date and time.
        recipes: the file of each arm's recipe, by label, where the comparison wrote them.
        overlap: what the selections have in common, where that is known.
    """

    name: str
    findings: Findings
    costs: Mapping[str, ArmCost]
    notes: tuple[str, ...]
    seeds: tuple[int, ...]
    command: str
    started: str
    recipes: Mapping[str, tuple[str, ...]]
    overlap: Overlap | None = None

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts, those on strategies first."""
        judged = [one for one in self.findings.results if one.verdict is not None]
        ordered = sorted(judged, key=lambda one: one.contender.role != "strategy")
        return [one.verdict for one in ordered if one.verdict is not None]

    @property
    def sentences(self) -> list[str]:
        """What the verdicts say."""
        return [verdict.sentence for verdict in self.verdicts]

    @property
    def headline(self) -> str:
        """How many strategies beat random, and which."""
        own = [one for one in self.findings.results if one.contender.role == "strategy"]
        judged = [one for one in own if one.verdict is not None]
        better = [one for one in judged if one.verdict and one.verdict.kind == "better"]
        said = f"{len(better) or 'None'} of {len(judged)} strategies"
        said = f"{said} beat{'s' if len(better) == 1 else ''} random"
        share = self.findings.judged[0].share
        unit = " points" if share else ""
        more = [amount(one.figures[MEAN].plain, share=share, sign=True) for one in better]
        named = [
            f"{one.contender.label} ({by}{unit})" for one, by in zip(better, more, strict=True)
        ]
        return f"{said}: {', '.join(named)}" if named else said

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers by which pictures and tables of the page name the arms, base left out."""
        labels = [
            one.contender.label for one in self.findings.results if one.contender.role != "base"
        ]
        return {label: number for number, label in enumerate(labels, start=1)}

    @property
    def judged_by(self) -> str:
        """What the verdicts are about."""
        judged = self.findings.judged
        if len(judged) == 1:
            return f"{judged[0].name} ({judged[0].metric})"
        return f"the mean of {len(judged)} tasks"

    def bought(self, result: Result) -> float | None:
        """Return how many more random examples the seconds of choosing would have trained on."""
        own = self.costs.get(result.contender.label)
        random = self.costs.get(result.contender.reference)
        if own is None or random is None or result.contender.role != "strategy":
            return None
        return more_random_data(own, random)


def document(summary: Summary) -> dict[str, Any]:
    """Return ``compare.json``."""
    findings = summary.findings
    return {
        "version": VERSION,
        "name": summary.name,
        "command": summary.command,
        "started": summary.started,
        "seeds": list(summary.seeds),
        "notes": list(summary.notes),
        "headline": summary.headline,
        "verdicts": summary.sentences,
        "judged_tasks": [task.name for task in findings.judged],
        "comparisons": findings.family,
        "tasks": [_task(task) for task in findings.tasks],
        "arms": [_arm(summary, result) for result in findings.results],
        "overlap": _overlap(summary.overlap),
    }


def _overlap(overlap: Overlap | None) -> dict[str, Any] | None:
    if overlap is None:
        return None
    shares = [[round(share, 6) for share in row] for row in overlap.shares.tolist()]
    return {"arms": list(overlap.arms), "shares": shares, "chance": overlap.chance}


def _task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "metric": task.metric,
        "chance": task.chance,
        "questions": task.questions,
        "higher_is_better": task.higher,
    }


def _arm(summary: Summary, result: Result) -> dict[str, Any]:
    label = result.contender.label
    cost = summary.costs.get(label)
    verdict = result.verdict
    return {
        **asdict(result.contender),
        "seeds": result.seeds,
        "results": {
            name: _figure(figure, _values(summary, label, name))
            for name, figure in result.figures.items()
        },
        "verdict": asdict(verdict) if verdict else None,
        "kept": cost.kept if cost else None,
        "tokens": cost.tokens if cost else None,
        "device_seconds": dict(cost.seconds) if cost else None,
        "flops": dict(cost.flops) if cost else None,
        "random_examples_for_the_same_seconds": summary.bought(result),
        "recipes": list(summary.recipes.get(label, ())),
    }


def _values(summary: Summary, label: str, name: str) -> list[float]:
    tasks = [task for task in summary.findings.tasks if task.name == name]
    return list(tasks[0].values[label]) if tasks else []


def _figure(figure: Figure, values: list[float]) -> dict[str, Any]:
    difference = figure.difference
    found = {
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "at_chance": figure.at_chance,
        "difference": asdict(difference) if difference else None,
    }
    return {**found, "by_seed": values} if values else found


# -------------------------------------------------------------------------------- as text

Row = tuple[str, ...]


def rows_of(summary: Summary, name: str) -> list[Row]:
    """Return the table of one task, or of the mean, as text, its head first."""
    findings = summary.findings
    tasks = [task for task in findings.tasks if task.name == name] or list(findings.judged)
    share = all(task.share for task in tasks)
    references = {one.contender.reference for one in findings.results} - {""}
    less = f"vs {references.pop()}" if len(references) == 1 else "difference"
    rows: list[Row] = [("arm", "score", "95 % interval", less, "95 % interval")]
    for result in findings.results:
        figure = result.figures[name]
        difference = figure.difference
        low, high = (difference.low, difference.high) if difference else (None, None)
        rows.append(
            (
                result.contender.label,
                amount(figure.value, share=share),
                span(figure.low, figure.high, share=share),
                amount(figure.plain, share=share, sign=True),
                span(low, high, share=share),
            )
        )
    return rows


def titles(summary: Summary) -> dict[str, str]:
    """Return the tables there are, the mean first, each with its title."""
    findings = summary.findings
    unit = ", in %" if findings.judged[0].share else ""
    found = {}
    if len(findings.judged) > 1:
        found[MEAN] = f"The mean of {len(findings.judged)} tasks{unit}"
    for task in findings.tasks:
        parts = [task.metric]
        if task.questions:
            parts.append(f"{task.questions:,} questions")
        if task.chance is not None:
            parts.append(f"chance {amount(task.chance, share=task.share)}")
        unit = ", in %" if task.share else ""
        found[task.name] = f"{task.name} ({', '.join(parts)}){unit}"
    return found


def by_seed_rows(summary: Summary) -> dict[str, list[Row]]:
    """Return for each task the result of every training as text, under the title of the task."""
    seeds = [str(seed) for seed in summary.seeds]
    if len(seeds) < 2:
        return {}
    found = {}
    for task in summary.findings.tasks:
        rows: list[Row] = [("arm", *(f"seed {seed}" for seed in seeds))]
        for result in summary.findings.results:
            values = task.values[result.contender.label]
            if len(values) == len(seeds):
                cells = [amount(value, share=task.share) for value in values]
                rows.append((result.contender.label, *cells))
        found[titles(summary)[task.name]] = rows
    return found


def cost_rows(summary: Summary) -> list[Row]:
    """Return the table of costs as text, its head first; seconds are device-seconds."""
    shown = [
        (result.contender.label, cost)
        for result in summary.findings.results
        if (cost := summary.costs.get(result.contender.label)) and cost.kept is not None
    ]
    # A part that no arm has, such as an embedding, would be a column of zeros.
    parts = [part for part in PARTS if any(cost.seconds[part] > 0 for _, cost in shown)]
    rows: list[Row] = [("arm", "examples", "tokens", *parts, "in all", "FLOPs")]
    for label, cost in shown:
        flops = DASH if cost.total_flops is None else f"{cost.total_flops:.1e}"
        spent = [seconds(cost.seconds[part]) for part in parts]
        rows.append(
            (label, whole(cost.kept), whole(cost.tokens), *spent, seconds(cost.total), flops)
        )
    return rows


def cost_sentences(summary: Summary) -> list[str]:
    """Return what the seconds of choosing would have bought as more random data."""
    found = []
    for result in summary.findings.results:
        more = summary.bought(result)
        own = summary.costs.get(result.contender.label)
        if more is None or own is None:
            continue
        random = summary.costs[result.contender.reference]
        label, spent = result.contender.label, own.choosing - random.choosing
        if more == 0:
            found.append(f"{label}: choosing took no longer than a random draw")
            continue
        found.append(
            f"{label}: choosing took {spent:,.1f} device-seconds more than a random draw; "
            f"training on random data, they pay for {more:,.0f} further examples "
            f"({1 + more / (random.kept or 1):.1f} times random's)"
        )
    return found


def amount(value: float | None, *, share: bool, sign: bool = False) -> str:
    """Return a result or a difference as text: shares in per cent."""
    if value is None or not math.isfinite(value):
        return DASH
    mark = "+" if sign else ""
    return f"{100 * value:{mark}z.1f}" if share else f"{value:{mark}.4g}"


def span(low: float | None, high: float | None, *, share: bool) -> str:
    """Return an interval as text."""
    if low is None or high is None:
        return DASH
    return f"{amount(low, share=share)} to {amount(high, share=share)}"


def whole(value: float | None) -> str:
    """Return a count as text."""
    return DASH if value is None else f"{value:,.0f}"


def seconds(value: float) -> str:
    """Return device-seconds as text."""
    return f"{value:,.1f} s" if value < 1000 else f"{value:,.0f} s"

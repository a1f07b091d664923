"""One plan of all arms: what several of them share is one node, and runs once."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selectmoe_core.compare.arms import BASE, OUTSIDE, RANDOM, STRATEGY, Arm, Sources, find_arms
from selectmoe_core.compare.footing import Planned, check_footing
from selectmoe_core.errors import Problem, RecipeError, listing
from selectmoe_core.paths import STORE
from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.digests import installed_code
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.remote.cache import store_at

DRAWN = (RANDOM, "source-balanced random")
"""Baselines that put the recipe's selector over random scores."""
SHARED = ("pool", "targets", "filter", "convert", "warmup", "questions")
"""Stages that most arms share: the first node of each has no arm in its name."""


@dataclass(frozen=True)
class PlannedTrial:
    """One arm with one seed, within the plan of all.

    Attributes:
        name: how the plan's nodes name it: ``router``, or ``router:1`` with a seed.
        seed: its seed; ``None`` for the base model.
        keys: the keys of its nodes in the plan of all, by their keys in its own.
        resolved: the recipe that makes this arm alone.
    """

    name: str
    seed: int | None
    keys: Mapping[str, str]
    resolved: Mapping[str, Any]

    @property
    def evaluate(self) -> str:
        """The key of its evaluation."""
        return next(key for key in self.keys.values() if key.startswith("evaluate"))


@dataclass(frozen=True)
class PlannedArm:
    """A row of the comparison, within the plan of all.

    Attributes:
        label: how tables name it.
        role: ``strategy``, or the baseline it is.
        point: the point of the grid it belongs to.
        reference: the label of the random arm it is compared with; empty for that arm itself, and
            for ``base`` and ``full`` where a grid has several.
        trials: one for each seed.
    """

    label: str
    role: str
    point: str
    reference: str
    trials: tuple[PlannedTrial, ...]

    @property
    def evaluations(self) -> tuple[str, ...]:
        """The keys of its evaluations."""
        return tuple(trial.evaluate for trial in self.trials)


@dataclass(frozen=True)
class Comparison:
    """All that a comparison will do.

    Attributes:
        plan: the nodes of all arms.
        arms: the rows of the result, baselines first.
        notes: where the arms do not stand on the same footing.
    """

    plan: Plan
    arms: tuple[PlannedArm, ...]
    notes: tuple[str, ...]


def plan_comparison(sources: Sources, registry: Registry, outputs: Path) -> Comparison:
    """Return what a comparison will do.

    Raises:
        RecipeError: everything that is wrong with the recipes of the arms, at once; arms that
            answer different questions or render text with different templates.
    """
    head, arms = find_arms(sources, registry)
    planned = _plans(arms, registry, outputs)
    _check_draws(planned)
    notes = check_footing(planned)
    merged = _Merged()
    rows = [merged.add(arm, plans) for arm, plans in planned]
    recipe = replace(head, resolved=Binder(head, registry).resolved())
    plan = Plan(recipe, merged.finished(), planned[0][1][0].store)
    return Comparison(plan, tuple(_referred(rows)), notes)


def _plans(arms: Sequence[Arm], registry: Registry, outputs: Path) -> list[Planned]:
    """Plan every arm with every seed; what is wrong with one names it."""
    code = installed_code(registry, store_at(outputs / STORE).root / "hashes.json")
    found: list[Planned] = []
    problems: dict[Problem, list[str]] = {}
    for arm in arms:
        try:
            plans = [
                make_plan(trial.recipe, registry, outputs, fetch=True, code=code)
                for trial in arm.trials
            ]
            found.append((arm, plans))
        except RecipeError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(arm.label)
    if problems:
        raise RecipeError.of(_named(problem, of, len(arms)) for problem, of in problems.items())
    return found


def _named(problem: Problem, labels: Sequence[str], arms: int) -> Problem:
    """Return a problem with the arms that have it, where not all of them do."""
    if len(set(labels)) == arms:
        return problem
    return replace(problem, what=f"{problem.what} (in {listing(list(dict.fromkeys(labels)))})")


def _check_draws(planned: Sequence[Planned]) -> None:
    for arm, plans in planned:
        select = plans[0].nodes.get("select")
        if arm.role in DRAWN and select and not select.entry.component.by_rank:
            raise RecipeError(
                f"[compare] the baseline '{arm.role}' needs a selector that goes by rank; "
                f"{select.entry.component.name} keeps by value",
                hint="use top-fraction or top-k in [select], and another selector in the strategies"
                " that need one",
            )


class _Merged:
    """The nodes of all arms under keys of their own, each digest once."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._keys: dict[tuple[str, str | None], str] = {}
        self._arms: dict[str, list[str]] = {}
        self._names: set[str] = set()

    def add(self, arm: Arm, plans: Sequence[Plan]) -> PlannedArm:
        """Add the nodes of an arm, seed by seed."""
        chosen = [_wanted(plan, arm.role) for plan in plans]
        trials = []
        slug = _unique(_slug(arm.label), self._names)
        self._names.add(slug)
        for trial, plan, nodes in zip(arm.trials, plans, chosen, strict=True):
            name = slug if trial.seed is None else f"{slug}:{trial.seed}"
            keys: dict[str, str] = {}
            for own, node in nodes.items():
                differ = len({other[own].digest for other in chosen}) > 1
                keys[own] = self._add(node, keys, name if differ else slug)
                self._arms.setdefault(keys[own], []).append(name)
            trials.append(PlannedTrial(name, trial.seed, keys, plan.recipe.resolved))
        return PlannedArm(arm.label, arm.role, arm.point, "", tuple(trials))

    def _add(self, node: Node, above: Mapping[str, str], name: str) -> str:
        identity = (node.stage, node.digest)
        if identity not in self._keys:
            alone = node.stage in SHARED and node.key not in self.nodes
            key = node.key if alone else _unique(f"{node.key}@{name}", self.nodes)
            inputs = {role: above[of] for role, of in node.inputs.items()}
            self.nodes[key] = replace(node, key=key, inputs=inputs)
            self._keys[identity] = key
        return self._keys[identity]

    def finished(self) -> dict[str, Node]:
        """Return the nodes, each with the arms that use it."""
        arms = {key: tuple(dict.fromkeys(names)) for key, names in self._arms.items()}
        return {key: replace(node, arms=arms[key]) for key, node in self.nodes.items()}


def _wanted(plan: Plan, role: str) -> dict[str, Node]:
    """Return what an arm's evaluation needs: no score that it does not choose by."""
    if role == BASE:
        return {"evaluate": replace(plan.nodes["evaluate@base"], key="evaluate")}
    needed: set[str] = set()
    stack = ["evaluate"]
    while stack:
        key = stack.pop()
        if key not in needed:
            needed.add(key)
            stack.extend(plan.nodes[key].inputs.values())
    return {key: node for key, node in plan.nodes.items() if key in needed}


def _slug(label: str) -> str:
    """Return a label as it can stand in the names of nodes and files."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", label)


def _unique(key: str, taken: Collection[str]) -> str:
    number = 1
    found = key
    while found in taken:
        number += 1
        found = f"{key}-{number}"
    return found


def _once(rows: Sequence[PlannedArm]) -> list[PlannedArm]:
    """Leave out a baseline that is the same at several points of a grid; name it without point."""
    found: dict[tuple[str, ...], PlannedArm] = {}
    for row in rows:
        _check_felt(row, rows)
        kind = row.role if row.role != STRATEGY else row.label
        found.setdefault((kind, *row.evaluations), row)
    roles = [row.role for row in found.values()]
    return [
        replace(row, label=row.role) if row.role != STRATEGY and roles.count(row.role) == 1 else row
        for row in found.values()
    ]


def _check_felt(row: PlannedArm, rows: Sequence[PlannedArm]) -> None:
    """Raise where two points of a grid make the same of a strategy."""
    name = row.label.removesuffix(row.point)
    for other in rows:
        same = other.role == row.role == STRATEGY and other.evaluations == row.evaluations
        if same and other.point != row.point and other.label.removesuffix(other.point) == name:
            raise RecipeError(
                f"the grid changes nothing in the strategy '{name.strip()}': {row.point} and "
                f"{other.point} are the same arm",
                hint="compare.budget sets how many examples are kept, whatever [select] says; a "
                "grid over compare.budget changes it",
            )


def _referred(rows: Sequence[PlannedArm]) -> Iterator[PlannedArm]:
    """Yield the rows of the result, each with the random arm that it is compared with."""
    kept = _once(rows)
    label_of = {row.evaluations: row.label for row in kept if row.role == RANDOM}
    random_at = {row.point: label_of[row.evaluations] for row in rows if row.role == RANDOM}
    for row in kept:
        alone = row.role in OUTSIDE and len(label_of) > 1
        reference = "" if row.role == RANDOM or alone else random_at[row.point]
        yield replace(row, reference=reference)

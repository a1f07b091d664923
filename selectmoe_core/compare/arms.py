"""Which arms a comparison has: strategies and baselines, each with the recipe of every seed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selectmoe_core.compare.grid import Point, first_values, points, seeds_first
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.binding import OF_MODEL
from selectmoe_core.plan.drawing import TOP_K, top_k_options
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.comparison import BASELINES, CompareConfig, Variant
from selectmoe_core.recipe.recipe import Recipe, read_recipe

STRATEGY, BASE, RANDOM, FULL = "strategy", "base", "random", "full"
BALANCED, LENGTH = "source-balanced random", "length"
OUTSIDE = (BASE, FULL)
"""Baselines that stand outside the budget."""


@dataclass(frozen=True)
class Trial:
    """One arm with one seed: what is planned as a recipe of its own.

    Attributes:
        seed: of its training and, for a random arm, of its draw; ``None`` for the base model.
        recipe: the recipe.
    """

    seed: int | None
    recipe: Recipe


@dataclass(frozen=True)
class Arm:
    """A row of the comparison.

    Attributes:
        label: how tables name it.
        role: ``strategy``, or the baseline it is.
        point: the point of the grid it belongs to; empty where there is no grid.
        trials: one for each seed.
    """

    label: str
    role: str
    point: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Sources:
    """The recipes that are compared, and what the command line changes in all of them.

    Attributes:
        paths: the recipes; the baselines, the seeds and the budget are those of the first.
        overrides: ``KEY=VALUE``; a list in the place of one value makes a grid.
        shipped: the folder of the shipped recipes.
    """

    paths: tuple[Path, ...]
    overrides: tuple[str, ...]
    shipped: Path | None

    def read(self, path: Path, point: Point, variant: Variant | None = None) -> Recipe:
        """Read a recipe at a point of the grid, changed into that of an arm or as it is."""
        return read_recipe(path, point.overrides, self.shipped, variant)


def find_arms(sources: Sources, registry: Registry) -> tuple[Recipe, list[Arm]]:
    """Return the first recipe, and for each point of the grid the baselines and the strategies.

    Raises:
        RecipeError: no strategy, no random baseline, two strategies of one name, a budget that a
            selector cannot keep.
    """
    overrides = seeds_first(sources.overrides)
    first = read_recipe(sources.paths[0], first_values(overrides), sources.shipped)
    found = []
    for point in points(overrides, first, registry):
        here = _Point(sources, point, registry)
        found.append((here.base, list(here.arms())))
    return found[0][0], [arm for _, arms in found for arm in arms]


class _Point:
    """The arms at one point of a grid."""

    def __init__(self, sources: Sources, point: Point, registry: Registry) -> None:
        self.sources = sources
        self.point = point
        self.registry = registry
        self.heads = [sources.read(path, point) for path in sources.paths]
        for head in self.heads:
            _check(head)
        self.base = self.heads[0]
        self.compare: CompareConfig = self.base.compare

    def arms(self) -> Iterator[Arm]:
        """Yield the baselines, then the strategies."""
        for baseline in self.compare.baselines or (BASE, RANDOM):
            yield self._baseline(baseline)
        if RANDOM not in (self.compare.baselines or (RANDOM,)):
            raise RecipeError(
                "[compare] has no baseline 'random' to compare with",
                hint='baselines = ["base", "random"]',
            )
        taken: set[str] = set()
        for path, head in zip(self.sources.paths, self.heads, strict=True):
            for name in head.compare.strategies or ("",):
                label = name or path.stem
                if label in BASELINES:
                    raise RecipeError(
                        f"the strategy '{label}' has the name of a baseline",
                        hint=f"give the recipe {path} another name",
                    )
                if label in taken:
                    raise RecipeError(
                        f"two strategies are called '{label}'", hint="give one another name"
                    )
                taken.add(label)
                yield self._arm(label, STRATEGY, path, _always(Variant(name)))

    def _baseline(self, role: str) -> Arm:
        path = self.sources.paths[0]
        if role == BASE:
            # The untouched model that training starts from, whatever [evaluate] names.
            without = tuple(f"evaluate.{key}" for key in OF_MODEL)
            changes = {"compare": {"baselines": [BASE]}}
            recipe = self._read(path, Variant(without=without, changes=changes))
            return Arm(self._label(role), role, self.point.label, (Trial(None, recipe),))
        return self._arm(role, role, path, lambda seed: self._change(role, seed))

    def _change(self, role: str, seed: int) -> Variant:
        """Return how a baseline changes the recipe for one seed."""
        use = LENGTH if role == LENGTH else RANDOM
        draws = role in (RANDOM, BALANCED)
        score = {"use": use, **({"seed": seed} if draws else {})}
        if role == FULL:
            return Variant("", ("score", "select"), {"score": score, "select": WHOLE_POOL})
        select = self._drawing() | (self._balanced() if role == BALANCED else {})
        return Variant("", ("score", "select.score"), {"score": score, "select": select})

    def _arm(self, name: str, role: str, path: Path, change: Callable[[int], Variant]) -> Arm:
        trials = []
        for seed in self.compare.seeds:
            variant = change(seed)
            variant = _laid(variant, {"train": {"seed": seed}})
            recipe = self._read(path, variant)
            kept = self._kept(recipe) if role not in OUTSIDE else {}
            if kept:
                recipe = self._read(path, _laid(variant, {"select": kept}))
            trials.append(Trial(seed, recipe))
        return Arm(self._label(name), role, self.point.label, tuple(trials))

    def _read(self, path: Path, variant: Variant) -> Recipe:
        return self.sources.read(path, self.point, variant)

    def _label(self, name: str) -> str:
        return f"{name} {self.point.label}".strip()

    def _balanced(self) -> dict[str, Any]:
        table = self.base.tables["select"]
        entry = self.registry.get(Kind.SELECTOR, table.own.use, where=table.where)
        if "per" not in entry.component.config.model_fields:
            raise RecipeError(
                f"[compare] the baseline '{BALANCED}' needs a selector with the option 'per'; "
                f"{table.own.use} has none",
                hint="use top-fraction or top-k, or leave this baseline out",
            )
        return {"per": "source"}

    def _drawing(self) -> dict[str, Any]:
        """Return ``top-k`` for a selector that reads more than scores and keeps a number."""
        table = self.base.tables["select"]
        use, where = table.own.use, table.where
        if self.registry.get(Kind.SELECTOR, use, where=where).component.by_rank:
            return {}
        options = top_k_options(self.registry, use, table.options, where=where)
        return {"use": TOP_K, **options} if options is not None else {}

    def _kept(self, recipe: Recipe) -> dict[str, Any]:
        """Return what makes an arm's selector keep what the budget says; nothing without one."""
        for budget in BUDGETS:
            amount = getattr(self.compare, budget.name)
            if amount is not None:
                return self._within(recipe, budget, amount)
        return {}

    def _within(self, recipe: Recipe, budget: "Budget", amount: int) -> dict[str, Any]:
        table = recipe.tables["select"]
        entry = self.registry.get(Kind.SELECTOR, table.own.use, where=table.where)
        if budget.option in entry.component.config.model_fields:
            return {budget.option: amount}
        if table.own.use not in BEST_FIRST:
            raise RecipeError(
                f"[compare] {budget.name}: the selector {table.own.use} cannot keep a number of "
                f"{budget.unit}",
                hint="use top-k or top-fraction, or leave the budget out",
            )
        fields = self.registry.get(Kind.SELECTOR, budget.selector, where="[compare]").component
        known = fields.config.model_fields
        same = {name: value for name, value in table.options.items() if name in known}
        return {**same, "use": budget.selector, budget.option: amount}


@dataclass(frozen=True)
class Budget:
    """A way to give all arms as much.

    Attributes:
        name: the option of ``[compare]``.
        option: the option of selectors that can keep so much.
        selector: the selector that takes the place of one that keeps the best without it.
        unit: what is counted.
    """

    name: str
    option: str
    selector: str
    unit: str


BUDGETS = (
    Budget("budget", "k", "top-k", "examples"),
    Budget("token_budget", "tokens", "token-budget", "tokens"),
)
BEST_FIRST = ("top-fraction", "top-k", "token-budget")
"""Selectors that keep the best: they differ in how much that is."""
WHOLE_POOL: Mapping[str, Any] = {"use": "top-fraction", "fraction": 1.0}
"""The selection of the baseline ``full``."""


def _always(variant: Variant) -> Callable[[int], Variant]:
    """Return a change that is the same for every seed."""
    return lambda _: variant


def _laid(variant: Variant, tables: Mapping[str, Mapping[str, Any]]) -> Variant:
    """Return the variant with further options, table by table."""
    own = variant.changes
    changes = {name: {**own.get(name, {}), **options} for name, options in tables.items()}
    return replace(variant, changes={**own, **changes})


def _check(head: Recipe) -> None:
    """Raise what is wrong with ``[compare]`` itself, and what a comparison cannot do without."""
    if head.problems:
        raise RecipeError.of(head.problems)
    for stage in ("select", "train", "evaluate"):
        if stage not in head.tables:
            raise RecipeError(
                f"{head.path}: a comparison needs [{stage}]", hint=f"add [{stage}] to the recipe"
            )

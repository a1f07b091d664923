"""What ``[compare]`` may say, and how a strategy or a baseline changes the rest of a recipe."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from selectmoe_core.config import Config
from selectmoe_core.errors import RecipeError, shown
from selectmoe_core.paths import NAME_RULE, name_fault
from selectmoe_core.recipe.overrides import RESERVED, Merged

Baseline = Literal["base", "random", "source-balanced random", "length", "full"]
BASELINES: tuple[Baseline, ...] = ("base", "random", "source-balanced random", "length", "full")
RUN_BASELINES = ("base", "random")
"""The baselines that ``selectmoe run`` makes too."""
MOST_SEED = (1 << 32) - 1
"""Random generators of numpy take seeds of 32 bits."""
CHANGEABLE = (
    "chat", "pool", "targets", "filter", "convert", "warmup", "embed", "score", "select", "train",
    "evaluate",
)  # fmt: skip
"""The tables of a recipe that a strategy may change."""


class CompareConfig(Config):
    """Which baselines to train and evaluate, and what ``selectmoe compare`` sets beside them."""

    baselines: tuple[Baseline, ...] = ()
    """``base``: the target model untouched; ``random``: the same selector over random scores.
    ``selectmoe compare`` also makes ``source-balanced random`` (a draw that gives every source the
    same share), ``length`` (the longest answers) and ``full`` (the whole pool)."""
    strategies: Mapping[str, Mapping[str, Any]] = Field(default={})
    """The strategies of ``selectmoe compare``: under each name what it changes in the recipe, as
    ``score.use = "length"``; an empty table is the recipe itself."""
    seeds: tuple[Annotated[int, Field(ge=0, le=MOST_SEED)], ...] = (1, 2, 3)
    """``selectmoe compare`` trains every arm once with each; random makes a new draw for each."""
    budget: PositiveInt | None = None
    """How many examples every strategy and every random arm of ``selectmoe compare`` keeps; left
    out, what ``[select]`` says. ``base`` and ``full`` stand outside."""
    token_budget: PositiveInt | None = None
    """The same in training tokens instead of examples: each keeps as many of its best examples as
    fit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("'seeds' needs at least one seed, and each only once")
        if self.budget is not None and self.token_budget is not None:
            raise ValueError("a comparison has one budget: set 'budget' or 'token_budget'")
        for name, changes in self.strategies.items():
            if fault := name_fault(name, chosen=True):
                what = f"{shown(name)} cannot be the name of a strategy: {fault}"
                raise ValueError(f"{what}; {NAME_RULE}")
            if name in BASELINES:
                raise ValueError(f"the strategy '{name}' has the name of a baseline")
            for key, value in changes.items():
                if key not in CHANGEABLE or not isinstance(value, Mapping):
                    raise ValueError(
                        f"the strategy '{name}' sets '{key}': it can change options of "
                        f'{", ".join(CHANGEABLE)}, as score.use = "length"'
                    )
        return self


@dataclass(frozen=True)
class Variant:
    """A change of a recipe that makes one arm of a comparison.

    Attributes:
        strategy: the strategy of ``[compare]`` to lay over the recipe; empty for none.
        without: tables and options to remove then, as ``evaluate.model``, where they are there.
        changes: tables to lay over what is left.
    """

    strategy: str = ""
    without: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def lay_variant(merged: Merged, variant: Variant) -> None:
    """Change a recipe into that of one arm, which compares nothing by itself.

    Raises:
        RecipeError: the recipe has no such strategy.
    """
    compare = merged.table.pop("compare", {})
    if variant.strategy:
        strategies = compare.get("strategies", {}) if isinstance(compare, dict) else {}
        if variant.strategy not in strategies:
            raise RecipeError(f"[compare.strategies] has no '{variant.strategy}'")
        table = copy.deepcopy(strategies[variant.strategy])
        merged.lay(table, Path.cwd())
        _drop_choice(merged, table)
        here = ("compare", "strategies", variant.strategy)
        for path, folder in list(merged.origins.items()):
            if path[:3] == here and len(path) > 3:
                merged.origins[path[3:]] = folder
    for name in variant.without:
        *parents, last = name.split(".")
        place: Any = merged.table
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    merged.lay(copy.deepcopy(dict(variant.changes)), Path.cwd())
    # Nobody wrote these: what a component has no use for, such as a seed, is left out.
    merged.carried |= {
        (stage, key): "the comparison"
        for stage, table in variant.changes.items()
        for key in table.keys() & RESERVED
    }


def _drop_choice(merged: Merged, table: Mapping[str, Any]) -> None:
    """Drop ``select.score`` where the strategy puts one score in the place of several."""
    select, score = merged.table.get("select"), table.get("score", {})
    chooses = isinstance(table.get("select"), dict) and "score" in table["select"]
    if "use" in score and isinstance(select, dict) and "score" in select and not chooses:
        merged.dropped.append(f"select.score (the strategy has one score: {score['use']})")
        del select["score"]

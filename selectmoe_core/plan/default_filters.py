"""Filters that a recipe has without writing them, and filters that it switches off."""

from dataclasses import replace
from typing import Any

from selectmoe_core.plan.binding import NONE, Binder
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.recipe.recipe import STAGES, Recipe, StageOptions, StageTable

WRITES_ITSELF = "tulu"
"""The chat format that can render every row."""


def with_default_filters(
    recipe: Recipe, binder: Binder, until: str | None
) -> tuple[Recipe, dict[str, str]]:
    """Return a recipe with the filters that it has by default and without those switched off.

    Args:
        recipe: the recipe.
        binder: finds components, and keeps mistakes.
        until: the last wanted stage.

    Returns:
        The recipe, and the filters that are not made, by the key of their node, with the reason.
    """
    without = {}
    written = dict(recipe.filters)
    for name, table in recipe.filters.items():
        if table.own.use == NONE:
            del written[name]
            without[f"filter:{name}"] = f'switched off by use = "{NONE}"'
            for key in table.options:
                remove = f"remove it, or name a filter in {table.where}"
                binder.problem(table.where, f"'{key}' has no effect with use = \"{NONE}\"", remove)
    switched_off = set(recipe.filters) - set(written)
    recipe = replace(recipe, filters=written)
    if _selects(recipe, until):
        for component in _by_default(recipe, binder):
            if component.name in switched_off or _is_there(component, recipe):
                continue
            if why := _why_not(component, recipe, binder):
                without[f"filter:{component.name}"] = why
            else:
                recipe = _with(component, recipe)
    return recipe, without


def _selects(recipe: Recipe, until: str | None) -> bool:
    """Return whether what is wanted depends on filters."""
    wanted = until in (None, "filter") or STAGES.index(until) >= STAGES.index("select")
    return wanted and {"pool", "select"} <= set(recipe.tables)


def _by_default(recipe: Recipe, binder: Binder) -> list[Component[Any, Any]]:
    """Return the filters that a recipe like this one has by default."""
    train = recipe.tables.get("train")
    skips = getattr(recipe.tables["pool"].own, "on_reject", "") == "skip"
    refuses = skips and recipe.chat.template != WRITES_ITSELF
    kinds = {
        "evaluated": "evaluate" in recipe.tables,
        "skipping": refuses and train is not None and train.own.model is not None,
    }
    filters = (entry.component for entry in binder.registry if entry.kind is Kind.FILTER)
    return [component for component in filters if kinds.get(component.by_default, False)]


def _is_there(component: Component[Any, Any], recipe: Recipe) -> bool:
    used = {table.own.use for table in recipe.filters.values()}
    return component.name in used or component.name in recipe.filters


def _why_not(component: Component[Any, Any], recipe: Recipe, binder: Binder) -> str:
    """Return why a filter cannot be had by default, if so."""
    if Need.QUESTIONS not in component.needs(component.config()):
        return ""
    bound = binder.bind(recipe.tables["evaluate"])
    if bound is None:
        return "[evaluate] has a mistake"
    evaluator, config = bound[0].component, bound[1]
    if evaluator.questions is None:
        return f"{evaluator.name} does not give the questions that it asks"
    changing = list(evaluator.unseen(config)) if evaluator.unseen is not None else []
    if changing:
        return (
            f"a change of {changing[0]} would not be noticed, so that every run would select and "
            f'train again; [filter.{component.name}] with use = "{component.name}" does that'
        )
    return ""


def _with(component: Component[Any, Any], recipe: Recipe) -> Recipe:
    """Return the recipe with one more filter, as if it had written the table."""
    name = component.name
    table = StageTable(f"[filter.{name}]", "filter", name, StageOptions(use=name), {}, {})
    written = {**recipe.resolved.get("filter", {}), name: {"use": name}}
    return replace(
        recipe,
        filters={**recipe.filters, name: table},
        resolved={**recipe.resolved, "filter": written},
        by_default=(*recipe.by_default, name),
    )

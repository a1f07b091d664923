"""Budgets in GPU-hours: how many tokens the training of a selection may have.

The plan's cost model says how long the training takes for a token. It is asked for examples of
``chat.max_length`` tokens, the longest that there are, so that the answer depends on the recipe
alone, and not on what of the pool is known: a digest must not change once the pool is built.
"""

from selectmoe_core.config import Config
from selectmoe_core.cost import DEVICES, Workload, seconds
from selectmoe_core.errors import ModelError, RecipeError
from selectmoe_core.plan.binding import Binder
from selectmoe_core.recipe.recipe import Recipe, StageTable

MANY = 1e6
"""Examples that the time of a token is computed from."""


def with_budget(table: StageTable, recipe: Recipe, binder: Binder) -> Config | None:
    """Return a selector's options with what it left to the plan; ``None`` if it left nothing."""
    bound = binder.bind(table)
    if bound is None or bound[0].component.budget is None:
        return None
    try:
        found: Config = bound[0].component.budget(
            bound[1], lambda hours, card: tokens_in(hours, card, recipe, binder)
        )
    except RecipeError as error:
        binder.problem(table.where, str(error), error.hint)
        return None
    return found


def tokens_in(hours: float, card: str, recipe: Recipe, binder: Binder) -> int:
    """Return how many tokens [train] reads in so many hours of a card, counted in one epoch.

    Raises:
        RecipeError: it cannot be computed, with the reason.
    """
    train = recipe.tables.get("train")
    bound = binder.bind(train) if train is not None else None
    if train is None:
        raise RecipeError("a budget in GPU-hours needs a table [train]", hint="add [train]")
    if bound is None:
        raise RecipeError("a budget in GPU-hours needs a [train] without mistakes")
    component, config = bound[0].component, bound[1]
    length = float(recipe.chat.max_length)

    def time(examples: float) -> float | None:
        work = Workload(examples, examples * length, True, _shape(train, binder), "bfloat16")
        cost = component.cost(config, work) if component.cost is not None else None
        return seconds(cost, DEVICES[card]) if cost is not None else None

    once, twice = time(MANY), time(2 * MANY)
    if not once or not twice:
        raise RecipeError(
            f"how long {component.name} trains on a token is unknown",
            hint="give tokens in place of gpu_hours; for a model of the hub, fetch its config.json "
            "first: `selectmoe plan` says how",
        )
    if twice < 1.5 * once:
        raise RecipeError(
            "the training has a fixed length whatever is selected, so that hours say nothing",
            hint="remove max_steps from [train], or give tokens in place of gpu_hours",
        )
    return int(hours * 3600 * MANY * length / once)


def _shape(train: StageTable, binder: Binder) -> dict[str, object] | None:
    model = binder.model(train)
    try:
        return binder.registry.models.config(model) if model is not None else None
    except ModelError:
        return None

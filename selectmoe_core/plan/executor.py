"""The executor that a recipe names, with its options: no digest has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from selectmoe_core.config import Config, examine
from selectmoe_core.errors import Problem, RecipeError
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.guard import Guarded
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.recipe import Recipe

WHERE = "[executor]"
LOCAL = "local"
"""The executor of this host, which a recipe without the table has."""


@dataclass(frozen=True)
class BoundExecutor:
    """An executor with its options, ready to be built.

    Attributes:
        entry: the component.
        config: its options.
    """

    entry: Entry
    config: Config

    def build(self) -> Guarded:
        """Build its part."""
        return self.entry.build(self.config, where=WHERE)


def bound_executor(recipe: Recipe, registry: Registry) -> BoundExecutor | None:
    """Return the executor that a recipe names; ``None`` if it names none.

    Raises:
        RecipeError: it is unknown, needs a package that is not there, or has a wrong option.
    """
    found = _bound(recipe, registry)
    if isinstance(found, BoundExecutor | None):
        return found
    raise RecipeError.of(found)


def executor_problems(recipe: Recipe, registry: Registry) -> Iterator[Problem]:
    """Yield what is wrong with the executor of a recipe."""
    found = _bound(recipe, registry)
    if not isinstance(found, BoundExecutor | None):
        yield from found


def _bound(recipe: Recipe, registry: Registry) -> BoundExecutor | tuple[Problem, ...] | None:
    table = recipe.executor
    if not isinstance(table, Mapping) or (table and not isinstance(table.get("use"), str)):
        hint = 'write [executor] and below it use = "local", or another name of `selectmoe list`'
        return (Problem(WHERE, "it names no executor", hint),)
    if not table:
        return None
    try:
        entry = registry.get(Kind.EXECUTOR, table["use"], where=WHERE)
    except RecipeError as error:
        return (Problem("", str(error), error.hint),)
    options = {key: value for key, value in table.items() if key != "use"}
    where = f"{WHERE} {table['use']}"
    config, problems = examine(entry.component.config, options, where=where)
    return BoundExecutor(entry, config) if config is not None and not problems else problems

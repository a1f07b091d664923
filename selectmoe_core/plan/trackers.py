"""The trackers that a recipe names, with their options: no stage reads them, no digest has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selectmoe_core.config import Config, examine
from selectmoe_core.errors import Problem, RecipeError
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.recipe import Recipe


@dataclass(frozen=True)
class BoundTracker:
    """A tracker with its options, ready to be built.

    Attributes:
        entry: the component.
        config: its options.
    """

    entry: Entry
    config: Config

    def build(self) -> Any:  # noqa: ANN401
        """Build its part."""
        return self.entry.build(self.config, where="[trackers]")


def bound_trackers(recipe: Recipe, registry: Registry) -> list[BoundTracker]:
    """Return the trackers of a recipe.

    Raises:
        RecipeError: a tracker is unknown, needs a package that is not there, or has a wrong option.
    """
    found = list(_bound(recipe, registry))
    if problems := [one for one in found if isinstance(one, Problem)]:
        raise RecipeError.of(problems)
    return [one for one in found if isinstance(one, BoundTracker)]


def tracker_problems(recipe: Recipe, registry: Registry) -> Iterator[Problem]:
    """Yield what is wrong with the trackers of a recipe."""
    return (one for one in _bound(recipe, registry) if isinstance(one, Problem))


def _bound(recipe: Recipe, registry: Registry) -> Iterator[BoundTracker | Problem]:
    table = recipe.trackers
    if not isinstance(table, Mapping) or not all(isinstance(t, Mapping) for t in table.values()):
        hint = "write [trackers.tensorboard], and its options below; the table may be empty"
        yield Problem("[trackers]", "each tracker has a table of its own", hint)
        return
    for name, options in table.items():
        try:
            entry = registry.get(Kind.TRACKER, name, where="[trackers]")
        except RecipeError as error:
            yield Problem("", str(error), error.hint)
            continue
        config, problems = examine(entry.component.config, options, where=f"[trackers.{name}]")
        yield from problems
        if config is not None and not problems:
            yield BoundTracker(entry, config)

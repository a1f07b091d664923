"""Grids on the command line: ``select.fraction=[0.05,0.1]`` makes a set of arms for each value."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import KINDS
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.comparison import CompareConfig
from selectmoe_core.recipe.head import RecipeHead
from selectmoe_core.recipe.overrides import parse_value
from selectmoe_core.recipe.recipe import OPTIONS, Recipe, StageOptions, StageTable
from selectmoe_core.tokens.chat import ChatConfig

MOST_CELLS = 100
"""Points of a grid; more of them are a mistake rather than a plan."""


@dataclass(frozen=True)
class Point:
    """One point of a grid.

    Attributes:
        label: what tells it from the others, ``fraction=0.05``; empty where there is one point.
        overrides: the overrides that make it.
    """

    label: str
    overrides: tuple[str, ...]


def seeds_first(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with ``seed=[1,2,3]`` as the seeds of the comparison."""
    return [
        f"compare.seeds={text.partition('=')[2]}"
        if text.startswith("seed=") and isinstance(_value(text), list)
        else text
        for text in overrides
    ]


def points(overrides: Sequence[str], recipe: Recipe, registry: Registry) -> list[Point]:
    """Return every combination of the values in lists that stand where an option takes one value.

    Args:
        overrides: the overrides of the command line.
        recipe: the recipe with the first value of each list.
        registry: the components, whose options say which of them take a list.

    Raises:
        RecipeError: an empty list, or too many combinations.
    """
    plain, axes = [], []
    for text in overrides:
        name, _, _ = text.lstrip("+").partition("=")
        values = _value(text)
        if not isinstance(values, list) or _takes_list(name.strip(), values, recipe, registry):
            plain.append(text)
            continue
        if not values:
            raise RecipeError(f"'{text}' has no value", hint=f"for example {name}=[0.05,0.1]")
        axes.append([(name.strip(), value) for value in values])
    found = list(itertools.product(*axes))
    if len(found) > MOST_CELLS:
        raise RecipeError(f"the grid has {len(found)} points", hint=f"at most {MOST_CELLS}")
    return [_point(choice, plain) for choice in found]


def first_values(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with the first value of each list in its place.

    The recipe is read with these to see which components it names.
    """
    found = []
    for text in overrides:
        values = _value(text)
        if isinstance(values, list) and values and not isinstance(values[0], list | dict):
            text = f"{text.partition('=')[0]}={_text(values[0])}"  # noqa: PLW2901
        found.append(text)
    return found


def _point(choice: Sequence[tuple[str, Any]], plain: Sequence[str]) -> Point:
    last = [name.rpartition(".")[2] for name, _ in choice]
    shown = [
        f"{short if last.count(short) == 1 else name}={_shown(value)}"
        for short, (name, value) in zip(last, choice, strict=True)
    ]
    chosen = [f"{name}={_text(value)}" for name, value in choice]
    return Point(" ".join(shown), (*plain, *chosen))


def _value(text: str) -> Any:  # noqa: ANN401  (a TOML value can be of any type)
    _, equals, value = text.partition("=")
    return parse_value(value.strip()) if equals and not text.startswith("~") else None


def _text(value: Any) -> str:  # noqa: ANN401
    """Return a value as TOML, as an override takes it."""
    import tomli_w

    return tomli_w.dumps({"value": value}).partition("=")[2].strip()


def _shown(value: Any) -> str:  # noqa: ANN401
    return value if isinstance(value, str) else _text(value)


def _takes_list(name: str, value: list[Any], recipe: Recipe, registry: Registry) -> bool:
    """Return whether an option takes a list as its value; one that nobody knows does."""
    field = _field(name.split("."), recipe, registry)
    if field is None or field.annotation is None:
        return True
    try:
        TypeAdapter(field.annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _field(parts: list[str], recipe: Recipe, registry: Registry) -> FieldInfo | None:
    """Return the option that a dotted key names, or ``None``."""
    if len(parts) == 1:
        return RecipeHead.model_fields.get(parts[0])
    stage, *_, key = parts
    if stage in ("compare", "chat"):
        config = CompareConfig if stage == "compare" else ChatConfig
        return config.model_fields.get(key) if len(parts) == 2 else None
    table = _table(parts, recipe)
    if table is None:
        return None
    own = OPTIONS.get(stage, StageOptions).model_fields.get(key)
    entry = registry.get(KINDS[stage], table.own.use, where=table.where)
    return own or entry.component.config.model_fields.get(key)


def _table(parts: list[str], recipe: Recipe) -> StageTable | None:
    stage, *middle, _ = parts
    if stage == "score":
        return recipe.scores.get(".".join(middle))
    return None if middle else recipe.tables.get(stage)

"""Options in words: their types, and their defaults as a recipe would write them."""

import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

WORDS = {
    str: ("text", "text"),
    Path: ("path", "paths"),
    bool: ("true or false", "true or false"),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
}
"""Names of types: for one value, and for several in a list or table."""
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
BARE = re.compile(r"[A-Za-z0-9_-]+")


def type_text(field: FieldInfo) -> str:
    """Return what an option may hold: ``whole number above 0``, ``list of text``."""
    return _text(field.annotation, field.metadata)


def default_text(value: object) -> str:
    """Return a default as a recipe would write it, on one line of TOML."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(str(key))} = {default_text(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, AbstractSet):
        value = sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(default_text, value))}]"
    if isinstance(value, int | float):
        return repr(value).lower()
    return _quoted(str(value))


def nested_config(field: FieldInfo) -> type[BaseModel] | None:
    """Return the options within an option that is a table of its own, else ``None``."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """Return a basic string of TOML: as in JSON, except that character 127 is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(kind: Any, limits: Iterable[Any] = (), *, several: bool = False) -> str:  # noqa: ANN401
    """Return a type in words, in the plural if ``several`` of them are in a list or a table."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _text(inside[0], (*inside[1:], *limits), several=several)
    if origin is Literal:
        values = ", ".join(map(default_text, inside))
        return f"one of {values}" if len(inside) > 1 else values
    if origin in (Union, types.UnionType):
        words = [_text(each, limits) for each in inside if each is not types.NoneType]
        return ", or ".join(dict.fromkeys(words))
    if origin:  # the keys of a table are text
        items = _text(inside[1 if issubclass(origin, Mapping) else 0], several=True)
        name = "table" if issubclass(origin, Mapping) else "list"
        return f"{name} of {items.replace('one of', 'any of', 1)}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "tables" if several else "table"
    return WORDS[kind][several] + _limits(limits)


def _limits(marks: Iterable[Any]) -> str:
    """Return the bounds of a number in words."""
    bounds: dict[str, str] = {}
    for mark in marks:
        for limit in mark.metadata if isinstance(mark, FieldInfo) else (mark,):
            found = {name: getattr(limit, name, None) for name in LIMITS}
            bounds |= {name: f"{bound:g}" for name, bound in found.items() if bound is not None}
    if bounds.keys() == {"ge", "le"}:
        return f" from {bounds['ge']} to {bounds['le']}"
    words = " and ".join(f"{LIMITS[name]} {bounds[name]}" for name in LIMITS if name in bounds)
    return f" of {words}" if words.startswith("at") else f" {words}".rstrip()

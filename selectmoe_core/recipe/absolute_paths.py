"""Paths of a recipe made absolute, so that it means the same from any folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.config import real_path, user_path
from selectmoe_core.recipe.overrides import Origins


def with_template(table: object, origins: Origins) -> object:
    """Resolve a template file against the recipe that named it."""
    if not isinstance(table, Mapping) or not isinstance(table.get("template"), str):
        return table
    if table["template"] in ("tulu", "model"):
        return table
    folder = origins.get(("chat", "template"), Path.cwd())
    return {**table, "template": str(real_path(user_path(table["template"], folder)))}


def with_absolute_paths(
    value: Mapping[str, Any], origins: Origins, path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the recipe as it runs from any folder: existing relative paths become absolute."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        here = (*path, key)
        if isinstance(item, Mapping):
            out[key] = with_absolute_paths(item, origins, here)
        elif path and isinstance(item, str):
            out[key] = absolute(item, origins.get(here, Path.cwd()))
        elif key != "extends":
            out[key] = item
    return out


def absolute(text: str, folder: Path) -> str:
    """Return an absolute path for text that is clearly a path, and any other text unchanged."""
    if text.startswith(("./", "../", "~/")) or ("/" in text and (folder / text).exists()):
        return str(real_path(user_path(text, folder)))
    return text

"""Layers of a recipe: the recipes it extends, the file, and ``key=value`` of the command line."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selectmoe_core.config import real_path, suggest, user_path
from selectmoe_core.errors import Problem, RecipeError, shown

Origins = dict[tuple[str, ...], Path]
"""The folder that the relative paths of a key start from, by the key's full name."""

Carried = dict[tuple[str, ...], str]
"""Keys that were written for a component which a later layer replaced, by the key's full name, with
that component's name."""

RESERVED = frozenset(
    {
        "model",
        "revision",
        "trust_remote_code",
        "seed",
        "subset_ratio",
        "on_reject",
        "max_skipped",
        "shard_examples",
        "score",
        "share",
        "base_model",
        "data",
        "adapter",
    }
)
"""Keys of a stage that are kept when a later layer changes its ``use``, if the new component takes
them."""

MOST_BYTES = 4 << 20
MOST_DEPTH = 16
"""Tables and lists in one another: a recipe needs four."""
MOST = 1 << 63
"""Whole numbers of TOML have 64 bits; tomllib reads longer ones too."""

KEY = re.compile(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")


def load_layers(path: Path, shipped: Path | None) -> list[tuple[dict[str, Any], Path]]:
    """Return the recipe and those that it extends, the deepest first, each with its folder.

    Raises:
        RecipeError: a file that cannot be read, is not TOML, or extends itself.
    """
    layers: list[tuple[dict[str, Any], Path]] = []
    seen: list[Path] = []
    wanted: Path | None = find_recipe(path, Path.cwd(), shipped)
    while wanted is not None:
        if wanted in seen:
            chain = " -> ".join(file.name for file in (*seen, wanted))
            raise RecipeError(
                f"the recipe extends itself: {chain}", hint="remove one of these 'extends'"
            )
        seen.append(wanted)
        table = _read(wanted)
        check_values(table)  # before anything walks through it
        layers.append((table, wanted.parent))
        parent = table.pop("extends", None)
        if parent is not None and not isinstance(parent, str):
            raise RecipeError(
                f"{wanted}: 'extends' must be a file name, got {shown(parent, 80)}",
                hint='write for example extends = "base.toml"',
            )
        wanted = find_recipe(Path(parent), wanted.parent, shipped) if parent else None
    return layers[::-1]


def check_values(merged: Mapping[str, Any]) -> None:
    """Raise a ``RecipeError`` for what no option can be: huge numbers, NUL, depth without end."""
    found: list[Problem] = []
    stack: list[tuple[tuple[str, ...], Any]] = [((), merged)]
    while stack:
        path, value = stack.pop()
        name = ".".join(path[:4])
        if len(path) > MOST_DEPTH:
            what = f"'{name}...': tables or lists nested too deeply"
            found.append(Problem("", what, "a recipe has tables in tables only"))
        elif isinstance(value, Mapping):
            stack += [((*path, repr(key)[1:-1]), item) for key, item in value.items()]
            if any("\0" in key for key in value):
                what = f"a key of '{name or 'the recipe'}' holds a NUL character"
                found.append(Problem("", what, "remove \\u0000"))
        elif isinstance(value, list):
            stack += [((*path, str(place)), item) for place, item in enumerate(value)]
        elif isinstance(value, str) and "\0" in value:
            found.append(Problem("", f"'{name}' holds a NUL character", "remove \\u0000"))
        elif isinstance(value, int) and not -MOST <= value < MOST:
            what = f"'{name}' is a number of more than 64 bits"
            found.append(Problem("", what, "write a smaller number"))
    if found:
        raise RecipeError.of(found[::-1])


def find_recipe(path: Path, folder: Path, shipped: Path | None) -> Path:
    """Return the file of a recipe: a path, or the name of one that is shipped."""
    here = real_path(user_path(str(path), folder))
    try:
        found, is_folder = here.is_file(), here.is_dir()
    except OSError as error:
        raise RecipeError(
            f"the recipe {path} cannot be read: {error.strerror}", hint="look at its path"
        ) from None
    if found:
        return here
    plain = not path.is_absolute() and ".." not in path.parts and len(path.parts) <= 2
    if shipped is not None and plain and path.name:
        named = shipped / path.with_suffix(".toml")
        if named.is_file():
            return named.resolve()
    if is_folder:
        raise RecipeError(f"{path} is a folder, not a recipe", hint="name the .toml file in it")
    raise RecipeError(
        f"there is no recipe {path}", hint="`selectmoe recipes list` shows the shipped recipes"
    )


@dataclass
class Merged:
    """Layers laid over one another.

    Attributes:
        table: the recipe so far.
        origins: where relative paths start from.
        dropped: options that fell away because a later layer changed ``use``, in words.
        carried: reserved keys that stayed when ``use`` changed, and that no later layer wrote.
    """

    table: dict[str, Any] = field(default_factory=dict)
    origins: Origins = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    carried: Carried = field(default_factory=dict)

    def lay(self, table: dict[str, Any], folder: Path) -> None:
        """Lay a table over what is there; a changed ``use`` drops the old one's options."""
        self._lay(self.table, table, folder, ())

    def _lay(
        self, below: dict[str, Any], table: dict[str, Any], folder: Path, path: tuple[str, ...]
    ) -> None:
        if path == ("score",) and {_named(table), _named(below)} == {True, False}:
            # One score in place of several, or several in place of one: nothing of the old fits.
            self.dropped.extend(f"{'.'.join(path)}.{key} (of the parent recipe)" for key in below)
            below.clear()
        if path and "use" in table and below.get("use", table["use"]) != table["use"]:
            self._drop(below, path)
        for key, value in table.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(below.get(key), dict):
                self._lay(below[key], value, folder, here)
            else:
                below[key] = value
                self.carried.pop(here, None)
                _remember(value, here, folder, self.origins)

    def _drop(self, below: dict[str, Any], path: tuple[str, ...]) -> None:
        """Drop the options of the component that goes; its reserved keys may serve the new one."""
        for key in list(below):
            if key in RESERVED:
                self.carried.setdefault((*path, key), str(below["use"]))
            elif key != "use" and not isinstance(below[key], dict):
                self.dropped.append(f"{'.'.join(path)}.{key} (of {below['use']})")
                del below[key]


def apply_overrides(merged: Merged, overrides: Sequence[str]) -> None:
    """Apply ``key=value``, ``+key=value`` or ``~key``, as Hydra users write them.

    They form one layer, so that ``score.use=length score.unit=words`` means the same in
    either order.
    """
    together = Merged()
    for override in overrides:
        if not override.startswith("~"):
            together.lay(_as_table(override), Path.cwd())
    merged.lay(together.table, Path.cwd())
    for override in overrides:
        if override.startswith("~"):
            _remove(merged.table, override[1:], override)


def _as_table(override: str) -> dict[str, Any]:
    name, equals, text = override.lstrip("+").partition("=")
    name = name.strip()
    if not equals or not KEY.match(name):
        raise RecipeError(
            f"'{override}' is not of the form KEY=VALUE",
            hint="for example select.fraction=0.1, or ~warmup to remove a table",
        )
    *parents, last = name.split(".")
    table: dict[str, Any] = {last: parse_value(text.strip())}
    for parent in reversed(parents):
        table = {parent: table}
    return table


def parse_value(text: str) -> Any:  # noqa: ANN401  (a TOML value can be of any type)
    """Return a TOML value; text without quotes, also in lists, is taken as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except RecursionError:
        raise RecipeError(
            f"'{text[:40]}...': lists or tables nested too deeply",
            hint="an option is a value or a flat list",
        ) from None
    except ValueError:  # no TOML, or a number too long to be one
        pass
    if text.startswith("[[[[["):
        raise RecipeError(f"'{text[:40]}...' is no TOML value", hint="text stands in quotes")
    if text.startswith("[") and text.endswith("]"):
        items = (item.strip() for item in text[1:-1].split(","))
        return [parse_value(item) for item in items if item]
    return {"True": True, "False": False}.get(text, text)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RecipeError(
                f"{path} has {path.stat().st_size:,} bytes, and a recipe at most {MOST_BYTES:,}",
                hint="name the recipe's .toml file",
            )
        # Some editors write a byte-order mark, which has no meaning here.
        return tomllib.loads(path.read_text(encoding="utf-8").removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"{path}: not valid TOML: {error}",
            hint='put text in quotes, and name each table once: [pool], then path = "pool.jsonl"',
        ) from None
    except RecursionError:
        raise RecipeError(
            f"{path}: lists or tables nested too deeply", hint="a recipe has tables in tables only"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}",
            hint="save the recipe as UTF-8",
        ) from None
    except ValueError:  # of int(), which takes up to 4,300 digits
        raise RecipeError(
            f"{path}: a number has thousands of digits", hint="numbers have at most 64 bits"
        ) from None
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read: {error.strerror}", hint="check the file's permissions"
        ) from None


def _named(scores: dict[str, Any]) -> bool | None:
    """Return whether a score table holds several scores by name; ``None`` if that is unclear."""
    if "use" in scores:
        return False
    return (
        True
        if any(isinstance(table, dict) and "use" in table for table in scores.values())
        else None
    )


def _remember(value: Any, path: tuple[str, ...], folder: Path, origins: Origins) -> None:  # noqa: ANN401
    if isinstance(value, dict):
        for key, item in value.items():
            _remember(item, (*path, key), folder, origins)
    origins[path] = folder


def _remove(merged: dict[str, Any], name: str, override: str) -> None:
    *parents, last = name.split(".")
    table: Any = merged
    for parent in parents:
        table = table.get(parent, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict) or last not in table:
        known = table if isinstance(table, dict) else merged
        raise RecipeError(
            f"'{override}': the recipe has no '{name}' to remove",
            hint=suggest(last, known, otherwise="it has"),
        )
    del table[last]

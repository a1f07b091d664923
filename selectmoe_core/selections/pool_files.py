"""Reading a pool that a command line names: a recipe's, or files with a reader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.config import Config, examine
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.binding import Binder
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.protocols import Reader
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import read_recipe

RECIPE = ".toml"


def reader_of(
    registry: Registry, pool: str, use: str | None, options: Mapping[str, Any], shipped: Path
) -> Reader:
    """Return the reader of a pool.

    Args:
        registry: the installed components.
        pool: a recipe, whose table [pool] is used; or what the reader's option ``path`` takes.
        use: the reader; by default found from the names of the files.
        options: further options of the reader.
        shipped: the folder of the shipped recipes.

    Raises:
        RecipeError: the reader cannot be told from the files, or an option is wrong.
    """
    if pool.endswith(RECIPE):
        if use is not None or options:
            raise RecipeError(
                f"{pool} is a recipe, which names its reader and options itself",
                hint="leave out --use and KEY=VALUE",
            )
        return _of_recipe(registry, Path(pool), shipped)
    name = use or _by_name(Path(pool), registry)
    component = registry.get(Kind.READER, name, where="materialize").component
    config = _checked(component.config, {"path": pool, **options}, where=f"materialize {name}")
    part: Reader = component.build(config)
    return part


def _of_recipe(registry: Registry, path: Path, shipped: Path) -> Reader:
    recipe = read_recipe(path, (), shipped)
    binder = Binder(recipe, registry)
    table = recipe.tables.get("pool")
    if table is None:
        raise RecipeError(f"{path} has no table [pool]", hint="name the files of the pool instead")
    bound = binder.bind(table)
    if bound is None:
        raise RecipeError.of(binder.problems)
    part: Reader = bound[0].component.build(bound[1])
    return part


def _checked(config: type[Config], table: Mapping[str, Any], *, where: str) -> Config:
    found, problems = examine(config, table, where=where)
    if found is None:
        raise RecipeError.of(problems)
    return found


def _by_name(path: Path, registry: Registry) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found = registry.readers_of(file.name for file in files)
    if len(found) == 1:
        return found[0]
    what = "files for several readers" if found else "no file that a reader is known for"
    raise RecipeError(
        f"{path}: {what}",
        hint="name the reader, as --use jsonl (selectmoe list reader shows them)",
    )

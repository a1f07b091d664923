"""``selectmoe recipes``."""

import json
import shutil
from pathlib import Path

import click

from selectmoe_core.cli.options import recipe_names, registry, shipped, wrapped
from selectmoe_core.errors import RecipeError


@click.group("recipes")
def command() -> None:
    """List, copy or describe the shipped recipes."""


@command.command("list")
def list_() -> None:
    """List the shipped recipes."""
    known = shipped()
    size = max(map(len, known))
    for name, path in known.items():
        click.echo(wrapped(name.ljust(size), _purpose(path)))


@command.command()
@click.argument("name", shell_complete=recipe_names)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite the target.")
def copy(name: str, target: Path, force: bool) -> None:
    """Copy a shipped recipe to a file of your own."""
    known = shipped()
    stem = name.removesuffix(".toml")
    if stem not in known:
        from selectmoe_core.config import suggest

        hint = suggest(stem, known, otherwise="recipes")
        raise RecipeError(f"there is no shipped recipe '{name}'", hint=hint)
    if target.is_dir():
        target /= known[stem].name
    if target.exists() and not force:
        raise RecipeError(
            f"{target} already exists", hint="name another file, or add --force to overwrite it"
        )
    if not target.parent.is_dir():
        raise RecipeError(
            f"there is no folder {target.parent}", hint="create it, or name another file"
        )
    shutil.copyfile(known[stem], target)
    click.echo(str(target))


@command.command()
@click.pass_context
def schema(context: click.Context) -> None:
    """Print a JSON schema of recipes, with which editors complete and check them."""
    from selectmoe_core.recipe.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(registry(context)), indent=2))


def _purpose(path: Path) -> str:
    """Return the first comment line of a recipe."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()

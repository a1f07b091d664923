"""``selectmoe recipes``."""

import json
import shutil
import tomllib
from pathlib import Path

import click

from selectmoe_core.cli.options import registry, shipped_recipes
from selectmoe_core.errors import RecipeError


@click.group("recipes")
def command() -> None:
    """List, copy or describe the shipped recipes."""


@command.command("list")
def list_() -> None:
    """List the shipped recipes."""
    for path in _shipped():
        click.echo(f"{path.stem:<24} {_purpose(path)}")


@command.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite the target.")
def copy(name: str, target: Path, force: bool) -> None:
    """Copy a shipped recipe to a file of your own."""
    known = {path.stem: path for path in _shipped()}
    stem = name.removesuffix(".toml")
    if stem not in known:
        from selectmoe_core.config import suggest

        hint = suggest(stem, known, otherwise="recipes")
        raise RecipeError(f"there is no shipped recipe '{name}'", hint=hint)
    if target.is_dir():
        target /= f"{stem}.toml"
    if target.exists() and not force:
        raise RecipeError(
            f"{target} already exists", hint="name another file, or add --force to overwrite it"
        )
    shutil.copyfile(known[stem], target)
    click.echo(str(target))


@command.command()
@click.pass_context
def schema(context: click.Context) -> None:
    """Print a JSON schema of recipes, with which editors complete and check them."""
    from selectmoe_core.recipe.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(registry(context)), indent=2))


def _shipped() -> list[Path]:
    return sorted(shipped_recipes().glob("*.toml"))


def _purpose(path: Path) -> str:
    """Return the first comment line of a recipe."""
    text = path.read_text(encoding="utf-8")
    tomllib.loads(text)
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip()

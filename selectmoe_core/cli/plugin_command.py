"""What a plugin's own command needs from the core: its options, a job, printed facts."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from selectmoe_core.cli.options import registry
from selectmoe_core.config import Config, parse
from selectmoe_core.errors import RecipeError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Inputs, Job
from selectmoe_core.recipe.overrides import parse_value
from selectmoe_core.runtime.progress import make_progress
from selectmoe_core.store import Facts

ConfigT = TypeVar("ConfigT", bound=Config)


def parse_options(config: type[ConfigT], arguments: Sequence[str], *, where: str) -> ConfigT:
    """Turn ``KEY=VALUE`` arguments into options, as a recipe's table would.

    Raises:
        RecipeError: names every mistake.
    """
    return parse(config, option_table(arguments, where=where), where=where)


def option_table(arguments: Sequence[str], *, where: str) -> dict[str, Any]:
    """Turn ``KEY=VALUE`` arguments into a table.

    Raises:
        RecipeError: an argument has no equals sign.
    """
    table: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise RecipeError(f"{where}: '{argument}' is not an option", hint="write KEY=VALUE")
        table[key.strip()] = parse_value(value.strip())
    return table


@contextmanager
def command_job(
    context: click.Context, *, seed: int = 0, model: ModelRef | None = None
) -> Iterator[Job]:
    """Give a part a job outside any recipe, with models, progress and a scratch folder.

    Args:
        context: the command's; it knows which plugins are disabled.
        seed: the job's seed.
        model: the job's input model, if the part needs one.
    """
    models = registry(context).models
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(seed, models=models, scratch=Path(scratch), progress=make_progress("auto"))
        yield replace(job, inputs=Inputs(model=model))


def print_facts(facts: Facts) -> None:
    """Print each fact on a line of stdout."""
    for name, value in facts.items():
        click.echo(f"{name}: {_short(value)}")


def _short(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    return str(value)

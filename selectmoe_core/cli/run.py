"""``selectmoe run``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from selectmoe_core.cli.options import (
    device_option,
    dtype_option,
    load_recipe,
    outputs_option,
    overrides_argument,
    recipe_argument,
    registry,
    threads_option,
    until_option,
    width,
)
from selectmoe_core.config import suggest
from selectmoe_core.errors import RecipeError
from selectmoe_core.recipe import STAGES


@click.command("run")
@recipe_argument
@overrides_argument
@outputs_option
@until_option
@click.option("--fresh", metavar="STAGE", help="Make this stage and all that reads it anew.")
@device_option
@dtype_option
@threads_option
@click.option(
    "--num-processes",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Processes of each stage that computes with torch, through accelerate.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the result and errors only.")
@click.option("--verbose", "-v", is_flag=True, help="Show what the libraries log.")
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    overrides: tuple[str, ...],
    outputs: Path,
    until: str | None,
    fresh: str | None,
    device: str,
    dtype: str,
    threads: int,
    num_processes: int,
    quiet: bool,
    verbose: bool,
) -> None:
    """Carry out a recipe; what is done already is reused.

    RECIPE is a file or the name of a shipped recipe; KEY=VALUE changes it, as in
    select.fraction=0.1, train.model=bundled:nano-llama or ~warmup.
    """
    from selectmoe_core.plan import make_plan
    from selectmoe_core.run import RunOptions, command_line, run_plan

    for name, stage in (("--until", until), ("--fresh", fresh)):
        if stage is not None and stage not in STAGES:
            hint = suggest(stage, STAGES, otherwise="the stages")
            raise RecipeError(f"{name} {stage}: there is no such stage", hint=hint)
    say = _silent if quiet else _say
    plugins = registry(context)
    loaded = load_recipe(recipe, overrides)
    plan = make_plan(loaded, plugins, outputs.resolve(), until=until, fetch=True)
    options = RunOptions(
        outputs=outputs.resolve(),
        device=device,
        dtype=dtype,
        threads=threads,
        processes=num_processes,
        progress="none" if quiet else "auto",
        verbose=verbose,
        disabled=context.find_root().obj or (),
        fresh=fresh,
        command=command_line(sys.argv[1:]),
    )
    outcome = run_plan(plan, plugins, options, say)
    _print_table(outcome.report.table)
    click.echo(f"Report: {_shown(outcome.folder / 'report.html')}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _silent(text: str) -> None:
    """Say nothing."""


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print the evaluation: the first row names the columns."""
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table

    head, *body = rows
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(head):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    # Three arms and their differences need this much; a value and its error stay on one line.
    Console(width=max(width(), 130)).print(table)

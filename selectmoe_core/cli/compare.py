"""``selectmoe compare``."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selectmoe_core.cli.options import (
    command_line,
    device_option,
    dtype_option,
    outputs_option,
    registry,
    shipped_recipes,
    threads_option,
    width,
)
from selectmoe_core.errors import RecipeError

if TYPE_CHECKING:
    from selectmoe_core.compare import Comparison, Sources
    from selectmoe_core.runner.run import RunOptions


@click.command("compare")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@outputs_option
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Show the arms, what they share and cost; run nothing.",
)
@device_option
@dtype_option
@threads_option
@click.option(
    "--num-processes",
    type=click.IntRange(min=1),
    help="Number of processes for warmup, score, train and evaluate; one per GPU by default.",
)
@click.option(
    "--accelerate-config",
    "accelerate_configs",
    multiple=True,
    metavar="[STAGE=]FILE",
    help="Configuration file of accelerate, for example for FSDP; for one stage or for all.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the result and errors.")
@click.option("--verbose", "-v", is_flag=True, help="Show what the libraries log.")
@click.pass_context
def command(
    context: click.Context,
    recipes: tuple[str, ...],
    outputs: Path,
    only_plan: bool,
    device: str,
    dtype: str,
    threads: int,
    num_processes: int | None,
    accelerate_configs: tuple[str, ...],
    quiet: bool,
    verbose: bool,
) -> None:
    """Compare strategies with random selections, over several seeds.

    Each RECIPE is a strategy, named by its file; a recipe with [compare.strategies] brings several.
    Baselines, seeds and budget are those of [compare] in the first one. KEY=VALUE changes all of
    them. A list for an option that takes one value makes a grid, as in select.fraction=[0.05,0.1];
    seed=[1,2,3] sets the seeds. What arms share runs once, and finished work is reused. Two or more
    folders of finished runs instead of recipes are compared without running anything.
    """
    from selectmoe_core.compare import Sources, plan_comparison
    from selectmoe_core.runner.launch import launch_of
    from selectmoe_core.runner.run import RunOptions

    names, overrides = _split(recipes)
    if all((Path(name) / "run.json").is_file() for name in names):
        _compare_runs([Path(name) for name in names], overrides)
        return
    sources = Sources(tuple(map(Path, names)), overrides, shipped_recipes())
    if only_plan:
        _print_plan(plan_comparison(sources, registry(context), outputs.resolve()), context)
        return
    options = RunOptions(
        outputs=outputs.resolve(),
        device=device,
        dtype=dtype,
        threads=threads,
        progress="none" if quiet else "auto",
        verbose=verbose,
        disabled=context.find_root().obj or (),
        command=command_line(sys.argv[1:]),
    )
    from selectmoe_core.cli.run import launched_team

    with launched_team() as team:
        if team is not None and not team.world.main:
            team.follow()
            return
        launch = launch_of(num_processes, accelerate_configs, team)
        _run(context, sources, replace(options, launch=launch))


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the recipes or runs, and the overrides."""
    changes = [text for text in arguments if _changes(text)]
    names = [text for text in arguments if not _changes(text)]
    if not names:
        raise RecipeError("there is no recipe to compare", hint="selectmoe compare compare")
    return names, tuple(changes)


def _changes(text: str) -> bool:
    """Return whether an argument changes the recipes; a file may have ``=`` in its name."""
    return text.startswith("~") or ("=" in text and not Path(text).exists())


def _run(context: click.Context, sources: "Sources", options: "RunOptions") -> None:
    from selectmoe_core.compare import plan_comparison, run_comparison
    from selectmoe_core.compare.rendering import text

    quiet = options.progress == "none"
    plugins = registry(context)
    comparison = plan_comparison(sources, plugins, options.outputs)
    for note in () if quiet else comparison.notes:
        click.echo(f"Note: {note}", err=True)
    outcome = run_comparison(comparison, plugins, options, _silent if quiet else _say)
    click.echo(text(outcome.summary, width()))
    click.echo(f"Report: {_shown(outcome.folder / 'compare.html')}")


def _print_plan(comparison: "Comparison", context: click.Context) -> None:
    from selectmoe_core.cli.plan_table import plan_lines
    from selectmoe_core.cost import DEVICES
    from selectmoe_core.plan.estimates import estimate

    plan, device = comparison.plan, DEVICES["cpu"]
    rows = estimate(plan, registry(context), device)
    for line in plan_lines(plan.recipe.head.name, rows, device, width()):
        click.echo(line)
    click.echo("")
    for arm in comparison.arms:
        seeds = ", ".join(str(trial.seed) for trial in arm.trials if trial.seed is not None)
        of_seeds = f": seeds {seeds}" if seeds else ""
        click.echo(f"arm {arm.label}{of_seeds}")
    for note in comparison.notes:
        click.echo(f"Note: {note}")


def _compare_runs(folders: Sequence[Path], overrides: Sequence[str]) -> None:
    from selectmoe_core.compare.past import compare_runs
    from selectmoe_core.compare.rendering import text

    if overrides:
        raise RecipeError(
            f"finished runs cannot be changed: {' '.join(overrides)}",
            hint="name the recipes to run them with these changes",
        )
    click.echo(text(compare_runs(folders), width()))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _silent(line: str) -> None:
    """Say nothing."""


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

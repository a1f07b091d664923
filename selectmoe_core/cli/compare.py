"""``selectmoe compare``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from selectmoe_core.cli.options import (
    Execution,
    execution_options,
    local_run,
    recipe_names,
    registry,
    shipped_recipes,
    shown,
    width,
)
from selectmoe_core.config import real_path
from selectmoe_core.errors import RecipeError

if TYPE_CHECKING:
    from selectmoe_core.compare import Comparison, Sources
    from selectmoe_core.runner.options import RunOptions


@click.command("compare")
@click.argument(
    "recipes",
    nargs=-1,
    required=True,
    metavar="RECIPE... [KEY=VALUE]...",
    shell_complete=recipe_names,
)
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Show the arms, what they share and cost; run nothing.",
)
@execution_options
@click.pass_context
def command(
    context: click.Context, recipes: tuple[str, ...], only_plan: bool, execution: Execution
) -> None:
    """Compare strategies with random selections, over several seeds.

    Each RECIPE is a strategy, named by its file; a recipe with [compare.strategies] brings several.
    Baselines, seeds and budget are those of [compare] in the first one. KEY=VALUE changes all of
    them. A list for an option that takes one value makes a grid, as in select.fraction=[0.05,0.1];
    seed=[1,2,3] sets the seeds. What arms share runs once, and finished work is reused. Two or more
    folders of finished runs instead of recipes are compared without running anything.
    """
    from selectmoe_core.cli.run import launched_team
    from selectmoe_core.compare import Sources, plan_comparison

    names, overrides = _split(recipes)
    if all((Path(name) / "run.json").is_file() for name in names):
        _compare_runs([Path(name) for name in names], [*overrides, *_given(context)])
        return
    changes = execution.changes(overrides)
    sources = Sources(tuple(map(Path, names)), changes, shipped_recipes())
    if only_plan:
        outputs = real_path(execution.outputs)
        _print_plan(plan_comparison(sources, registry(context), outputs), context)
        return
    with launched_team() as team:
        if team is not None and not team.world.main:
            team.follow()
            return
        _run(context, sources, execution.options(context, team), execution.say)


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the recipes or runs, and the overrides."""
    changes = [text for text in arguments if _changes(text)]
    names = [local_run(text) for text in arguments if not _changes(text)]
    if not names:
        raise RecipeError("there is no recipe to compare", hint="selectmoe compare compare")
    return names, tuple(changes)


def _given(context: click.Context) -> list[str]:
    """Return the options of running that the command line gives."""
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in ("recipes", "quiet", "verbose")
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]


def _changes(text: str) -> bool:
    """Return whether an argument changes the recipes; a file may have ``=`` in its name."""
    return text.startswith("~") or ("=" in text and not Path(text).exists())


def _run(
    context: click.Context,
    sources: "Sources",
    options: "RunOptions",
    say: Callable[[str], None],
) -> None:
    from selectmoe_core.compare import plan_comparison, run_comparison
    from selectmoe_core.compare.rendering import text

    plugins = registry(context)
    comparison = plan_comparison(sources, plugins, options.outputs)
    for note in comparison.notes:
        say(f"Note: {note}")
    outcome = run_comparison(comparison, plugins, options, say)
    click.echo(text(outcome.summary, width()))
    click.echo(f"Report: {shown(outcome.folder / 'compare.html')}")


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


def _compare_runs(folders: Sequence[Path], changes: Sequence[str]) -> None:
    from selectmoe_core.compare.past import compare_runs
    from selectmoe_core.compare.rendering import text

    if changes:
        raise RecipeError(
            "finished runs are compared as they are, and nothing is run: "
            f"{' '.join(changes)} has no effect",
            hint="leave it out, or name the recipes to run them with it",
        )
    click.echo(text(compare_runs(folders), width()))

"""``selectmoe worker``."""

import shlex
from pathlib import Path

import click
from click.core import ParameterSource

from selectmoe_core.cli.options import (
    Execution,
    device_option,
    dtype_option,
    load_recipe,
    outputs_option,
    overrides_argument,
    quiet_option,
    recipe_argument,
    registry,
    threads_option,
    verbose_option,
)


@click.command("worker")
@recipe_argument
@overrides_argument
@click.option(
    "--stage",
    required=True,
    type=click.Choice(["embed", "score"]),
    help="The stage whose shards the worker makes.",
)
@click.option(
    "--wait", is_flag=True, help="Wait for what the stage reads, where it is not made yet."
)
@click.option(
    "--limit-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Take no further shard that would end later than N minutes from now.",
)
@outputs_option
@device_option
@dtype_option
@threads_option
@quiet_option
@verbose_option
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    overrides: tuple[str, ...],
    stage: str,
    wait: bool,
    limit_minutes: float | None,
    outputs: Path,
    device: str,
    dtype: str,
    threads: int,
    quiet: bool,
    verbose: bool,
) -> None:
    """Help a run: make shards of a stage, beside other workers, until all are made.

    Workers join and leave at any time, on any host that sees the outputs folder. `selectmoe run`
    with the same recipe finishes the stage and goes on. RECIPE and KEY=VALUE are those of the run.
    """
    from selectmoe_core.plan.plan import make_plan
    from selectmoe_core.runner.joining import Joining, join_run

    execution = Execution(
        outputs=outputs,
        device=device,
        dtype=dtype,
        threads=threads,
        quiet=quiet,
        verbose=verbose,
        num_processes=1,
    )
    options = execution.options(context)
    plugins = registry(context)
    plan = make_plan(load_recipe(recipe, overrides), plugins, options.outputs, fetch=True)
    run = _run(context, recipe, overrides)
    join_run(plan, plugins, options, Joining(stage, run, wait, limit_minutes), execution.say)


def _run(context: click.Context, recipe: Path, overrides: tuple[str, ...]) -> str:
    """Return the command of the run that the worker helps."""
    words = ["selectmoe", "run", str(recipe), *overrides]
    for name in ("outputs", "device", "dtype", "threads"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += [f"--{name}", str(context.params[name])]
    return shlex.join(words)

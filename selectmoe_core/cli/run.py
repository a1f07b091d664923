"""``selectmoe run``."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selectmoe_core.cli.options import (
    Execution,
    execution_options,
    load_recipe,
    overrides_argument,
    recipe_argument,
    registry,
    shown,
    until_option,
    width,
)
from selectmoe_core.config import suggest
from selectmoe_core.errors import RecipeError
from selectmoe_core.recipe.recipe import STAGES, Recipe

if TYPE_CHECKING:
    from selectmoe_core.plan.node import Plan
    from selectmoe_core.runner.external_launch import Team
    from selectmoe_core.runner.options import RunOptions


@click.command("run")
@recipe_argument
@overrides_argument
@until_option
@click.option(
    "--fresh", metavar="STAGE", help="Rerun this stage and everything that depends on it."
)
@execution_options
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    overrides: tuple[str, ...],
    until: str | None,
    fresh: str | None,
    execution: Execution,
) -> None:
    """Run a recipe; finished stages are reused.

    RECIPE is a file or the name of a shipped recipe; KEY=VALUE changes it, as in
    select.fraction=0.1, train.model=bundled:nano-llama or ~warmup.
    """
    for name, stage in (("--until", until), ("--fresh", fresh)):
        if stage is not None and stage not in STAGES:
            hint = suggest(stage, STAGES, otherwise="the stages")
            raise RecipeError(f"{name} {stage}: there is no such stage", hint=hint)
    with launched_team() as team:
        if team is not None and not team.world.main:
            team.follow()
            return
        options = replace(execution.options(context, team), fresh=fresh)
        changes = execution.changes(overrides)
        loaded = load_recipe(recipe, changes)
        _run(context, loaded, options, until, execution.say, changes)


def _run(
    context: click.Context,
    recipe: Recipe,
    options: "RunOptions",
    until: str | None,
    say: Callable[[str], None],
    changes: Sequence[str],
) -> None:
    from selectmoe_core.plan.plan import make_plan
    from selectmoe_core.runner.run import execute_plan

    plugins = registry(context)
    plan = make_plan(recipe, plugins, options.outputs, until=until, fetch=True)
    outcome = execute_plan(plan, plugins, options, say)
    _print_table(outcome.report.table)
    for warning in outcome.report.warnings:
        click.echo(f"Warning: {warning}")
    click.echo(f"Report: {shown(outcome.folder / 'report.html')}")
    for line in _further(plan, shown(outcome.folder), changes):
        say(line)


def _further(plan: "Plan", folder: Path, changes: Sequence[str]) -> Iterator[str]:
    """Yield where the results are, what was not made, and commands that may come next."""
    yield f"Results: {folder / 'artifacts'}"
    for name, why in plan.not_needed.items():
        if name.startswith("baseline"):
            yield f"Not made: {name} ({why})"
    for what, command in _next_commands(plan, folder, changes):
        yield f"Next: {what}"  # a line of its own: both fit a narrow terminal
        yield f"  {command}"


def _next_commands(plan: "Plan", folder: Path, changes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield commands that may come next, each with what it is for."""
    from selectmoe_core.report.next_commands import audit_scores, compare_seeds

    stages = {node.stage for node in plan.nodes.values()}
    recipe = str(plan.recipe.path)
    if "score" in stages:
        yield audit_scores(recipe, changes)
    if {"select", "evaluate"} <= stages:
        yield compare_seeds(recipe, changes)
    if "select" in stages:
        place = shlex.quote(str(folder))
        yield "A file for your trainer", f"selectmoe export {place} --to trl"
    for stage, (what, following) in STEPS_AFTER.items():
        if stage in stages and not stages & set(STAGES[STAGES.index(stage) + 1 :]):
            place = shlex.quote(str(folder / "artifacts" / stage))
            yield what, f"selectmoe run {following}={place}"
    if not stages & {"score", *STEPS_AFTER}:
        command = shlex.join(["selectmoe", "plan", recipe, *changes])
        yield "What is done, and what further stages cost", command


STEPS_AFTER = {
    "convert": ("Warm it up", "steps/warmup warmup.model"),
    "warmup": ("Score a pool with it", "steps/score score.model"),
    "train": ("Evaluate it", "steps/evaluate evaluate.adapter"),
}
"""After a stage: what may come next, the shipped recipe of that step, and its option that takes the
stage's result."""


@contextmanager
def launched_team() -> "Iterator[Team | None]":
    """Yield the processes that another launcher started with this one; release them afterwards."""
    from selectmoe_core.runner.external_launch import join_team

    team = join_team()
    try:
        yield team
    finally:
        if team is not None and team.world.main:
            team.end()


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print the evaluation: one row per task below ``rows[0]``, or blocks on a narrow terminal."""
    if not rows:
        return
    head, *body = rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width():
        for row in rows:
            cells = [cell.rjust(size) for cell, size in zip(row, widths, strict=True)]
            click.echo("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
        return
    label, value = max(map(len, head)), max(widths[1:])
    for row in body:
        click.echo(row[0])
        for name, cell in zip(head[1:], row[1:], strict=True):
            click.echo(f"  {name.ljust(label)}  {cell.rjust(value)}")

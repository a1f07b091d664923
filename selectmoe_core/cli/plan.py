"""``selectmoe plan``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from selectmoe_core.cli.options import (
    load_recipe,
    outputs_option,
    overrides_argument,
    recipe_argument,
    registry,
    until_option,
    width,
)
from selectmoe_core.config import real_path, suggest
from selectmoe_core.cost import DEVICES
from selectmoe_core.errors import RecipeError, listing
from selectmoe_core.recipe.recipe import STAGES
from selectmoe_core.runtime.terminal import one_line

if TYPE_CHECKING:
    from selectmoe_core.plan.node import Node, Plan

HASH_LIMIT = 64 << 20
"""``plan`` hashes files up to this size; the hashes of larger ones must be known already."""


@click.command("plan")
@recipe_argument
@overrides_argument
@outputs_option
@until_option
@click.option(
    "--hash", "hash_all", is_flag=True, help="Also hash large files, so that every digest is known."
)
@click.option(
    "--for",
    "device",
    default="cpu",
    show_default=True,
    type=click.Choice(sorted(DEVICES)),
    help="The device to estimate time and memory for.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    overrides: tuple[str, ...],
    outputs: Path,
    until: str | None,
    hash_all: bool,
    device: str,
    as_json: bool,
) -> None:
    """Check a recipe and show what it will do and cost.

    Nothing is downloaded or computed. ~ marks an estimate, ? an unknown value.
    """
    from selectmoe_core.cli.plan_table import plan_lines
    from selectmoe_core.plan.estimates import estimate
    from selectmoe_core.plan.plan import make_plan
    from selectmoe_core.runtime.hardware import visible_gpus

    if until is not None and until not in STAGES:
        hint = suggest(until, STAGES, otherwise="the stages")
        raise RecipeError(f"--until {until}: there is no such stage", hint=hint)
    plugins = registry(context)
    limit = None if hash_all else HASH_LIMIT
    plan = make_plan(
        load_recipe(recipe, overrides), plugins, real_path(outputs), until=until, hash_limit=limit
    )
    rows = estimate(plan, plugins, DEVICES[device])
    shared = [node.key for node in plan.nodes.values() if node.shared]
    processes = max(1, visible_gpus())
    if as_json:
        import json

        found = {"nodes": rows, "not_needed": dict(plan.not_needed), "processes": processes}
        click.echo(json.dumps(found, indent=2))
        return
    for line in plan_lines(plan.recipe.head.name, rows, DEVICES[device], width()):
        click.echo(line)
    if "pool" in plan.nodes:
        _print_sources(plan.nodes["pool"])
    if shared:
        click.echo(
            f"{processes} process{'es' * (processes > 1)} for each of {', '.join(shared)} "
            f"(visible GPUs: {visible_gpus()}); change it with run --num-processes N"
        )
    for problem in dict.fromkeys(row["cost_problem"] for row in rows if row["cost_problem"]):
        click.echo(f"Warning: {one_line(problem)}; its figures are unknown", err=True)
    _print_notes(plan)


def _print_notes(plan: "Plan") -> None:
    """Print what is done again, left out or dropped, and why."""
    for node, damage in plan.damaged():
        click.echo(f"damaged, to be made again: {node.key} ({damage})")
    for key, why in plan.never_reused():
        click.echo(f"never reused: {key} ({why})")
    for stage, why in plan.not_needed.items():
        click.echo(f"not needed: {stage} ({why})")
    for dropped in plan.recipe.dropped:
        click.echo(f"dropped because 'use' changed: {dropped}")


def _print_sources(pool: "Node") -> None:
    """Print the sources that file names show, without reading a file."""
    if pool.entry.component.sources is None:
        return
    names = list(pool.entry.component.sources(pool.config))
    if names:
        click.echo(f"pool sources by file name: {listing(names)} (rows may name their own)")

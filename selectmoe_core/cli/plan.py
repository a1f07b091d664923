"""``selectmoe plan``."""

import textwrap
from collections.abc import Iterator
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
    from selectmoe_core.plugin.registry import Registry

HASH_LIMIT = 64 << 20
"""``plan`` hashes files up to this size; the hashes of larger ones must be known already."""
FILTER = "filter:"
"""The beginning of the key of a filter's node."""


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
    for line in _notes(plan, plugins, shared):
        click.echo(line)
    for problem in dict.fromkeys(row["cost_problem"] for row in rows if row["cost_problem"]):
        click.echo(f"Warning: {one_line(problem)}; its figures are unknown", err=True)
    whole_words = textwrap.TextWrapper(
        width(), subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    for line in _remarks(plan):
        click.echo(whole_words.fill(line))


def _remarks(plan: "Plan") -> Iterator[str]:
    """Yield what is done again, left out or dropped, and why."""
    for node, damage in plan.damaged():
        yield f"damaged, to be made again: {node.key} ({damage})"
    for key, why in plan.never_reused():
        yield f"never reused: {key} ({why})"
    for stage, why in plan.not_needed.items():
        made = "not made" if stage.startswith(FILTER) else "not needed"
        yield f"{made}: {stage} ({why})"
    for name in plan.recipe.by_default:
        if f"{FILTER}{name}" in plan.nodes:
            yield f"by default: {FILTER}{name} (filter.{name}.use=none switches it off)"
    for dropped in plan.recipe.dropped:
        yield f"dropped because 'use' changed: {dropped}"


def _notes(plan: "Plan", plugins: "Registry", shared: list[str]) -> Iterator[str]:
    """Yield what else a user may want to know: sources, processes, models of unknown size."""
    from selectmoe_core.cli.plan_table import wrapped_items
    from selectmoe_core.plan.estimates import models_without_config
    from selectmoe_core.plan.executor import LOCAL
    from selectmoe_core.runtime.hardware import visible_gpus

    if "pool" in plan.nodes and (names := _sources(plan.nodes["pool"])):
        yield from wrapped_items("pool sources by file name:", names, width())
        yield "    (rows may name their own)"
    executor = plan.recipe.executor.get("use", LOCAL)
    if shared and executor != LOCAL:
        yield from wrapped_items(f"executor {executor} for each of", shared, width())
    elif shared:
        count = max(1, visible_gpus())
        start = f"{count} process{'es' * (count > 1)} for each of"
        yield from wrapped_items(start, shared, width())
        yield f"    (visible GPUs: {visible_gpus()}); change it with run --num-processes N"
        yield "    starting it takes about 5 s more than the times above, which leave it out"
    unknown = models_without_config(plan, plugins)
    if unknown:
        yield "models that are not on this machine, so that their sizes are unknown;"
        yield "their config.json is enough for estimates:"
    for name in unknown:
        yield f"    hf download {one_line(name)} config.json"


def _sources(pool: "Node") -> list[str]:
    """Return the sources that file names show, without reading a file."""
    if pool.entry.component.sources is None:
        return []
    names = list(pool.entry.component.sources(pool.config))
    return listing(names).split(", ") if names else []

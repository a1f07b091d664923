"""``selectmoe audit``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selectmoe_core.cli.options import (
    Execution,
    device_option,
    dtype_option,
    load_recipe,
    outputs_option,
    overrides_argument,
    recipe_argument,
    registry,
    shown,
    threads_option,
    width,
)
from selectmoe_core.config import real_path
from selectmoe_core.recipe.recipe import Recipe

if TYPE_CHECKING:
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.runner.options import RunOptions


@click.command("audit")
@recipe_argument
@overrides_argument
@outputs_option
@click.option(
    "--sample", type=click.IntRange(min=20), help="Number of rows to take from the pool [2000]."
)
@click.option(
    "--kinds",
    metavar="A,B",
    help="Kinds of damage to plant, by the names that an audit prints; all by default.",
)
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="NAME",
    help="Audit only this score: one of the recipe's, or a scorer with its default options; "
    "can be given several times.",
)
@click.option(
    "--labelled",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare the scores with your own labels instead of planted damage.",
)
@click.option(
    "--labels",
    metavar="COLUMN",
    default="label",
    show_default=True,
    help="The column of --labelled that holds good, bad or a number.",
)
@click.option(
    "--fit-blend",
    is_flag=True,
    help="Also learn weights for a blend of the scores, from kinds that warm-up was not shown.",
)
@device_option
@dtype_option
@threads_option
@click.option("--quiet", "-q", is_flag=True, help="Print only the result and errors.")
@click.option("--verbose", "-v", is_flag=True, help="Show what the libraries log.")
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    overrides: tuple[str, ...],
    outputs: Path,
    sample: int | None,
    kinds: str | None,
    scores: tuple[str, ...],
    labelled: Path | None,
    labels: str,
    fit_blend: bool,
    device: str,
    dtype: str,
    threads: int,
    quiet: bool,
    verbose: bool,
) -> None:
    """Plant damage into a sample of the pool and see which scores notice.

    Half of a sample of the recipe's pool is damaged in labelled ways; the recipe's scores are
    computed on it, with the recipe's own Select-MoE model. Prints how well each score separates
    clean rows from damaged rows, for each kind; how clean its best rows are; how closely it
    follows length; and whether it can be trusted on this pool. [audit] in the recipe gives the
    defaults.

    With --labelled nothing is planted: each row of FILE has a label of its own (good, bad or a
    number), or a chosen and a rejected answer to one prompt, and the audit prints how far each
    score agrees with these labels, beside the length of the answers.
    """
    plugins = registry(context)
    loaded = _with_options(load_recipe(recipe, overrides), sample, kinds)
    execution = Execution(outputs, device, dtype, threads, quiet, verbose)
    options, say = execution.options(context), execution.say
    if fit_blend and labelled is not None:
        raise click.UsageError("--fit-blend learns from planted damage; leave out --labelled")
    if labelled is None:
        text, folder = _planted(loaded, plugins, options, say, scores, fit_blend=fit_blend)
    else:
        file = real_path(labelled)
        text, folder = _labelled(loaded, plugins, options, say, scores, file, labels)
    click.echo(text)
    click.echo(f"Audit: {shown(folder / 'audit.md')}")


def _planted(
    recipe: Recipe,
    plugins: "Registry",
    options: "RunOptions",
    say: Callable[[str], None],
    scores: tuple[str, ...],
    *,
    fit_blend: bool,
) -> tuple[str, Path]:
    """Audit by planted damage; return the result as text and its folder."""
    from selectmoe_core.audit import plan_audit, run_audit
    from selectmoe_core.audit.rendering import text

    planned = plan_audit(recipe, plugins, options.outputs, scores, fit_blend=fit_blend)
    outcome = run_audit(planned, plugins, options, say)
    return text(outcome.audit, min(width(), 100)), outcome.folder


def _labelled(
    recipe: Recipe,
    plugins: "Registry",
    options: "RunOptions",
    say: Callable[[str], None],
    scores: tuple[str, ...],
    file: Path,
    column: str,
) -> tuple[str, Path]:
    """Audit by labels; return the result as text and its folder."""
    from selectmoe_core.audit.labelled import plan_labelled, run_labelled
    from selectmoe_core.audit.labelled.rendering import label_text

    planned = plan_labelled(recipe, plugins, options.outputs, file, column, scores)
    outcome = run_labelled(planned, plugins, options, say)
    return label_text(outcome.audit, min(width(), 100)), outcome.folder


def _with_options(recipe: Recipe, sample: int | None, kinds: str | None) -> Recipe:
    """Lay the command line's options over ``[audit]``."""
    from dataclasses import replace

    named = tuple(kind.strip() for kind in (kinds or "").split(",") if kind.strip())
    options = {"sample": sample, "kinds": named}
    given = {name: value for name, value in options.items() if value}
    return replace(recipe, audit=recipe.audit.model_copy(update=given))

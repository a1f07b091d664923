"""``selectmoe audit``."""

import sys
from pathlib import Path

import click

from selectmoe_core.cli.options import (
    command_line,
    device_option,
    dtype_option,
    load_recipe,
    outputs_option,
    overrides_argument,
    recipe_argument,
    registry,
    threads_option,
    width,
)
from selectmoe_core.config import real_path
from selectmoe_core.recipe.recipe import Recipe


@click.command("audit")
@recipe_argument
@overrides_argument
@outputs_option
@click.option(
    "--sample", type=click.IntRange(min=20), help="Number of rows to take from the pool [2000]."
)
@click.option("--kinds", metavar="A,B", help="Kinds of damage to plant; all by default.")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="NAME",
    help="Also audit this scorer, with its default options; can be given several times.",
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
    """
    from selectmoe_core.audit import plan_audit, run_audit
    from selectmoe_core.audit.rendering import text
    from selectmoe_core.runner.options import RunOptions

    plugins = registry(context)
    loaded = _with_options(load_recipe(recipe, overrides), sample, kinds, scores)
    planned = plan_audit(loaded, plugins, real_path(outputs))
    options = RunOptions(
        outputs=real_path(outputs),
        device=device,
        dtype=dtype,
        threads=threads,
        progress="none" if quiet else "auto",
        verbose=verbose,
        disabled=context.find_root().obj or (),
        command=command_line(sys.argv[1:]),
    )
    outcome = run_audit(planned, plugins, options, lambda line: _say(line, quiet=quiet))
    click.echo(text(outcome.audit, min(width(), 100)))
    click.echo(f"Audit: {_shown(outcome.folder / 'audit.md')}")


def _with_options(
    recipe: Recipe, sample: int | None, kinds: str | None, scores: tuple[str, ...]
) -> Recipe:
    """Lay the command line's options over ``[audit]``."""
    from dataclasses import replace

    named = tuple(kind.strip() for kind in (kinds or "").split(",") if kind.strip())
    options = {"sample": sample, "kinds": named, "scores": scores}
    given = {name: value for name, value in options.items() if value}
    return replace(recipe, audit=recipe.audit.model_copy(update=given))


def _say(line: str, *, quiet: bool) -> None:
    if not quiet:
        click.echo(line, err=True)


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

"""The command ``selectmoe init``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from selectmoe_core import DataError, ModelError, ModelRef, RecipeError, command_job
from selectmoe_readers.config import Columns
from selectmoe_readers.init.writing import NANO, Models, recipe_text


@click.command("init")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option(
    "--out",
    default="recipe.toml",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The recipe to write.",
)
@click.option(
    "--model",
    metavar="MODEL",
    help="The model to fine-tune, a hub id or a folder; without it the recipe ends with the "
    "selection and needs no GPU.",
)
@click.option(
    "--score-with",
    "scorer",
    metavar="MODEL",
    help="The mixture-of-experts model that scores: by default a tiny bundled one, and "
    "allenai/OLMoE-1B-7B-0125 if --model names a model that is not bundled.",
)
@click.option("--task", "tasks", multiple=True, help="A task to evaluate on; several are allowed.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="The column for one of selectmoe's names, as prompt=question.",
)
@click.option(
    "--format",
    "row_format",
    type=click.Choice(["messages", "alpaca", "sharegpt", "prompt_completion"]),
    help="The format of the rows; found from the columns by default.",
)
@click.option(
    "--drop-opening",
    is_flag=True,
    help="Drop answers before the first question, instead of rejecting such rows.",
)
@click.option("--source", help="One source name for all rows.")
@click.option("--force", is_flag=True, help="Overwrite the recipe.")
@click.pass_context
def init(
    context: click.Context,
    files: tuple[Path, ...],
    out: Path,
    model: str | None,
    scorer: str | None,
    tasks: tuple[str, ...],
    columns: tuple[str, ...],
    row_format: str | None,
    drop_opening: bool,
    source: str | None,
    force: bool,
) -> None:
    """Look at data files, and write a recipe that runs.

    Shows format, columns, sources, what cannot be used, and three rows as the model will see
    them. Asks nothing. FILE is JSON lines, a JSON array, CSV, TSV or Parquet, or a folder.
    """
    if out.exists() and not force:
        raise RecipeError(f"{out} already exists", hint="name another file with --out, or --force")
    if tasks and not model:
        raise RecipeError("--task evaluates a model", hint="add --model MODEL")
    given: dict[str, Any] = {"columns": _columns(columns)}
    given |= {"format": row_format} if row_format else {}
    given |= {"opening": "drop"} if drop_opening else {}
    given |= {"source": source} if source else {}
    try:
        for line in _init(context, list(files), given, out, Models(model, scorer), tasks):
            click.echo(line)
    except (DataError, ModelError) as error:
        raise RecipeError(str(error), hint=error.hint) from None


def _init(
    context: click.Context,
    files: list[Path],
    given: dict[str, Any],
    out: Path,
    models: Models,
    tasks: tuple[str, ...],
) -> Iterator[str]:
    from selectmoe_readers.init.look import look_at
    from selectmoe_readers.init.showing import choose_length, found_lines, row_lines, shortens

    look = look_at(files, given)
    yield from found_lines(look)
    if not look.sample:
        raise RecipeError(
            "no row can be used", hint="the reasons are above; see --column, --format"
        )
    yield ""
    with command_job(context) as job:
        ref = ModelRef(models.target or NANO)
        local = job.models.local(ref) is not None
        tokenizer = job.models.tokenizer(ref if local else ModelRef(NANO))
    length = choose_length(look, tokenizer)
    whose = ref if local else f"{NANO}, since {ref} is not on this machine"
    yield "The first rows as the model will see them:"
    yield f"(tokens of {whose})"
    if shortens(look):
        yield "(long messages are shortened here, not in the pool)"
    yield from row_lines(look, tokenizer, length[0])
    if length[1]:
        yield f"{length[1]:,} of {len(look.sample):,} rows have more than {length[0]:,} tokens"
    out.write_text(
        recipe_text(look, out, models=models, tasks=tasks, length=length), encoding="utf-8"
    )
    yield ""
    yield f"Wrote {out}. Next:"
    yield f"  selectmoe plan {out}    what will be done, and what it costs"
    yield f"  selectmoe audit {out}   can the score be trusted on this pool?"
    yield f"  selectmoe run {out}     {_ends(models, tasks)}"


def _ends(models: Models, tasks: tuple[str, ...]) -> str:
    """Return what a run of the recipe does, in a few words."""
    if tasks:
        return "select, train, and compare with a random draw"
    return "select and train" if models.target else "select the best tenth"


def _columns(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not equals or name not in Columns.model_fields:
            raise RecipeError(
                f"--column {text}: not of the form NAME=COLUMN",
                hint=f"the names are {', '.join(Columns.model_fields)}",
            )
        found[name] = column
    try:
        Columns.model_validate(found)
    except ValidationError:
        raise RecipeError("--column: a column's name is empty", hint="write NAME=COLUMN") from None
    return found

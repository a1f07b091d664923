"""``selectmoe runs``."""

from collections.abc import Sequence
from pathlib import Path

import click

from selectmoe_core.cli.options import outputs_option, width

GAP = 2


@click.command("runs")
@outputs_option
@click.option("--recipe", metavar="NAME", help="Only the runs of this recipe.")
@click.option("--json", "as_json", is_flag=True, help="Print the runs as JSON.")
def command(outputs: Path, recipe: str | None, as_json: bool) -> None:
    """List past runs: what differed and what came out.

    The latest comes first; each line says what differed from the run of the same recipe before it.
    `selectmoe report` takes one of the folders, `selectmoe compare` two or more.
    """
    from dataclasses import asdict

    from selectmoe_core.compare.runs import past_runs, table
    from selectmoe_core.remote.cache import fetch_records

    fetch_records(outputs)
    runs = [run for run in past_runs(outputs) if recipe in (None, run.name)]
    if as_json:
        import json

        found = [{**asdict(run), "folder": str(run.folder)} for run in runs]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
        return
    if not runs:
        click.echo(f"There are no runs in {outputs}.", err=True)
        return
    for line in _lines(table(runs, outputs), width()):
        click.echo(line)


def _lines(rows: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Return the table; where it is too wide, what differed stands on a line of its own."""
    from selectmoe_core.runtime.terminal import one_line

    cells = [[one_line(cell) for cell in row] for row in rows]
    sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
    found = []
    apart = sum(sizes) + GAP * (len(sizes) - 1) > columns
    for number, row in enumerate(cells):
        shown = row[:-1] if apart else row
        padded = [cell.ljust(size) for cell, size in zip(shown, sizes, strict=False)]
        found.append(_cut((" " * GAP).join(padded).rstrip(), columns))
        if apart and number:
            found.append(_cut(f"    {row[-1]}", columns))
    return found


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: columns - 1]}…"

"""``selectmoe explain``."""

import json
from pathlib import Path

import click

from selectmoe_core.cli.options import arm_option, run_argument


@click.command("explain")
@run_argument("run")
@click.argument("row", metavar="ID")
@arm_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, row: str, arm: str, as_json: bool) -> None:
    """Say why a row of the pool was selected, or why not.

    RUN is the run's folder, outputs/<recipe>/<date>/<time>; ID is the row's id in
    selected_data.jsonl, its first digits, or the id that it has in your own file.
    """
    from selectmoe_core.selections.chosen import Chosen
    from selectmoe_core.selections.explanation import explain, explanation_lines

    found = explain(Chosen.open(run, arm), row)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2, ensure_ascii=False))
        return
    for line in explanation_lines(found):
        click.echo(line)

"""``selectmoe diff``."""

import json
from pathlib import Path

import click

from selectmoe_core.cli.options import arm_option, run_argument


@click.command("diff")
@run_argument("run_a")
@run_argument("run_b")
@arm_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run_a: Path, run_b: Path, arm: str, as_json: bool) -> None:
    """Compare the selections of two runs: common rows, sources, lengths.

    RUN_A and RUN_B are folders of runs, outputs/<recipe>/<date>/<time>.
    """
    from selectmoe_core.selections.chosen import Chosen
    from selectmoe_core.selections.difference import difference, difference_lines

    found = difference(Chosen.open(run_a, arm), Chosen.open(run_b, arm))
    if as_json:
        click.echo(json.dumps(found.document(), indent=2, ensure_ascii=False))
        return
    for line in difference_lines(found, (str(run_a), str(run_b))):
        click.echo(line)

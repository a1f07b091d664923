"""``selectmoe export``."""

from pathlib import Path

import click

from selectmoe_core.cli.options import arm_option, run_argument, shown
from selectmoe_core.selections.formats import FORMATS

PORTABLE = "selection"
"""The name of the portable form, which holds no text."""


@click.command("export")
@run_argument("run")
@click.option(
    "--to",
    "name",
    required=True,
    type=click.Choice([*FORMATS, PORTABLE]),
    help="The format to write; selection is the portable form without text, for materialize.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write into; export/FORMAT in the run's folder by default.",
)
@arm_option
@click.option(
    "--skip-unfit",
    is_flag=True,
    help="Leave out the rows that the format cannot hold, such as answers of weight 0.",
)
def command(run: Path, name: str, out: Path | None, arm: str, skip_unfit: bool) -> None:
    """Write the selection of a run in the format of a trainer.

    RUN is the run's folder, outputs/<recipe>/<date>/<time>.
    """
    from selectmoe_core.selections.chosen import Chosen
    from selectmoe_core.selections.export import README, export
    from selectmoe_core.selections.portable import write_portable

    folder = out or run / "export" / name
    chosen = Chosen.open(run, arm)
    if name == PORTABLE:
        click.echo(str(write_portable(chosen, arm, folder)))
        return
    form = FORMATS[name]
    skipped = export(chosen, form, folder, skip_unfit=skip_unfit)
    if skipped:
        click.echo(f"Left out {skipped:,} rows that the format cannot hold.", err=True)
    click.echo(str(folder / form.file))
    click.echo(f"How to use it: {shown(folder / README)}", err=True)

"""``selectmoe export``."""

from pathlib import Path

import click

from selectmoe_core.cli.options import arm_option, run_argument
from selectmoe_core.selections.formats import FORMATS


@click.command("export")
@run_argument("run")
@click.option(
    "--to", "name", required=True, type=click.Choice(list(FORMATS)), help="The format to write."
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
    from selectmoe_core.selections.export import export

    form = FORMATS[name]
    folder = out or run / "export" / name
    skipped = export(Chosen.open(run, arm), form, folder, skip_unfit=skip_unfit)
    if skipped:
        click.echo(f"Left out {skipped:,} rows that the format cannot hold.", err=True)
    click.echo(str(folder / form.file))

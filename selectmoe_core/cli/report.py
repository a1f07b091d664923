"""``selectmoe report``."""

from pathlib import Path

import click


@click.command("report")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(run: Path) -> None:
    """Write the report of a run again.

    RUN is the run's folder, outputs/<recipe>/<date>/<time>.
    """
    from selectmoe_core.errors import StageError
    from selectmoe_core.report import write_report
    from selectmoe_core.report.record import RunRecord
    from selectmoe_core.runtime.progress import make_progress

    if (run / "audit.json").is_file():
        raise StageError(
            f"{run} is the folder of an audit; its report is {run / 'audit.md'}",
            hint="name the folder of a run; the run's report also shows the audits of its scores",
        )
    write_report(RunRecord.load(run), run, make_progress("auto"))
    click.echo(str(run / "report.html"))

"""``selectmoe report``."""

import json
import webbrowser
from pathlib import Path

import click

from selectmoe_core.cli.options import RunFolder, run_argument


@click.command("report")
@run_argument("run")
@click.option(
    "--against",
    type=RunFolder(exists=True, file_okay=False, path_type=Path),
    metavar="RUN2",
    help="Compare the selection with that of another run, example by example.",
)
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _print_schema(context) if wanted else None,
    help="Print the JSON schema of report.json.",
)
def command(run: Path, against: Path | None, opened: bool) -> None:
    """Write the report of a run again.

    RUN is the run's folder, outputs/<recipe>/<date>/<time>.
    """
    from selectmoe_core.report import write_report
    from selectmoe_core.report.record import RunRecord
    from selectmoe_core.runtime.progress import make_progress

    for folder in filter(None, (run, against)):
        _refuse_audit(folder)
    other = RunRecord.load(against) if against else None
    write_report(RunRecord.load(run), run, make_progress("auto"), other)
    page = run / "report.html"
    click.echo(str(page))
    if opened and not webbrowser.open(page.resolve().as_uri()):
        click.echo(f"There is no browser here; open the file yourself: {page}", err=True)


def _refuse_audit(run: Path) -> None:
    from selectmoe_core.errors import StageError

    if (run / "audit.json").is_file():
        raise StageError(
            f"{run} is the folder of an audit; its report is {run / 'audit.md'}",
            hint="name the folder of a run; the run's report also shows the audits of its scores",
        )


def _print_schema(context: click.Context) -> None:
    from selectmoe_core.report.schema import shipped_schema

    click.echo(json.dumps(shipped_schema(), indent=2))
    context.exit()

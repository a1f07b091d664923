"""``selectmoe materialize``."""

from pathlib import Path

import click

from selectmoe_core.cli.options import registry, shipped_recipes


@click.command("materialize")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("pool")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--use", metavar="READER", help="How to read POOL; by default found from its files.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("selected_data.jsonl"),
    show_default=True,
    help="The file to write; it must not exist yet.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Write the rows that POOL has, and list the others in OUT.missing.txt.",
)
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    pool: str,
    options: tuple[str, ...],
    use: str | None,
    out: Path,
    allow_missing: bool,
) -> None:
    """Make the rows of a portable selection again from your own data.

    FILE was written by `selectmoe export RUN --to selection`; it holds no text. POOL is a recipe,
    whose table [pool] says what to read, or a file or folder of data; KEY=VALUE are options of the
    reader. Rows are found by their content, wherever they stand.
    """
    from selectmoe_core.cli.plugin_command import command_job, option_table
    from selectmoe_core.errors import RecipeError
    from selectmoe_core.selections.materialize import materialize
    from selectmoe_core.selections.pool_files import reader_of
    from selectmoe_core.selections.portable import Portable
    from selectmoe_core.store import write_text

    if out.exists():
        raise RecipeError(f"{out} exists", hint="name another file with --out, or remove it")
    if not out.parent.is_dir():
        raise RecipeError(f"there is no folder {out.parent}", hint="create it, or change --out")
    portable = Portable.open(file)
    table = option_table(options, where="materialize")
    reader = reader_of(registry(context), pool, use, table, shipped_recipes())
    with command_job(context) as job, job.progress.task("read", None, "rows") as advance:
        rows = reader.read(job)
        found = materialize(portable, rows, out, allow_missing=allow_missing, advance=advance)
    if found.missing:
        listed = out.with_name(f"{out.name}.missing.txt")
        write_text(listed, "".join(f"{row}\n" for row in found.missing))
        said = f"{len(found.missing):,} of {len(portable.table):,} rows are missing: {listed}"
        click.echo(said, err=True)
    click.echo(f"{found.rows:,} rows: {out}", err=True)
    click.echo(str(out))

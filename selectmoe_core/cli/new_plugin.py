"""``selectmoe new-plugin``."""

from pathlib import Path

import click

from selectmoe_core.plugin.component import Kind


@click.command("new-plugin")
@click.argument("kind", type=click.Choice([str(kind) for kind in Kind]))
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to write it; selectmoe-NAME in the working folder by default.",
)
def command(kind: str, name: str, folder: Path | None) -> None:
    """Write the package of a new plugin, with its test, docs and CI.

    Its component works as it stands, so that you can change it step by step. NAME is the
    component's name: lower-case words joined by dashes.
    """
    from selectmoe_core.new_plugin import write_plugin

    place = folder or Path(f"selectmoe-{name}")
    for path in write_plugin(Kind(kind), name, place):
        click.echo(str(place / path))
    click.echo(f"Next: pip install -e '{place}[test]' && pytest {place}", err=True)
    click.echo(f"Next: selectmoe describe {kind} {name}", err=True)

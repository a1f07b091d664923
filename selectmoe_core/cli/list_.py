"""``selectmoe list``."""

import click

from selectmoe_core.cli.options import registry
from selectmoe_core.plugin.component import Kind


@click.command("list")
@click.argument("kind", required=False, type=click.Choice([str(kind) for kind in Kind]))
@click.pass_context
def command(context: click.Context, kind: str | None) -> None:
    """List the components that plugins offer."""
    for entry in registry(context):
        if kind is None or entry.kind == kind:
            click.echo(
                f"{entry.kind:<10} {entry.component.name:<18} {entry.plugin:<8} "
                f"{entry.component.summary}"
            )

"""``selectmoe plugins``."""

import click

from selectmoe_core.cli.commands import left_out
from selectmoe_core.plugin.manager import find_plugins


@click.command("plugins")
@click.pass_context
def command(context: click.Context) -> None:
    """List the installed plugins."""
    disabled = left_out(context)
    for entry in find_plugins():
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?"
        note = "  (disabled)" if entry.name in disabled else ""
        click.echo(f"{entry.name:<12} {owner:<20} {entry.value}{note}")

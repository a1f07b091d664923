"""``selectmoe list``."""

import click

from selectmoe_core.cli.options import registry, wrapped
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Entry
from selectmoe_core.runtime.terminal import one_line


@click.command("list")
@click.argument("kind", required=False, type=click.Choice([str(kind) for kind in Kind]))
@click.pass_context
def command(context: click.Context, kind: str | None) -> None:
    """List the components that plugins offer.

    In a pipe each component is one line.
    """
    entries = [entry for entry in registry(context) if kind is None or entry.kind == kind]
    names = [_names(entry) for entry in entries]
    sizes = [max(map(len, column)) for column in zip(*names, strict=True)]
    for entry, cells in zip(entries, names, strict=True):
        start = "  ".join(cell.ljust(size) for cell, size in zip(cells, sizes, strict=True))
        click.echo(wrapped(start, one_line(entry.component.summary)))


def _names(entry: Entry) -> tuple[str, ...]:
    return str(entry.kind), one_line(entry.component.name), one_line(entry.plugin)

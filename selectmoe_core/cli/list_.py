"""``selectmoe list``."""

import os
import sys
import textwrap

import click

from selectmoe_core.cli.options import registry, width
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Entry
from selectmoe_core.runtime.terminal import one_line

LEAST = 30
"""Columns that a summary needs beside the names; on a narrower terminal it goes below them."""


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
        click.echo(_line(start, one_line(entry.component.summary)))


def _names(entry: Entry) -> tuple[str, ...]:
    return str(entry.kind), one_line(entry.component.name), one_line(entry.plugin)


def _line(start: str, summary: str) -> str:
    """Return a component's lines: the summary is wrapped under itself, and no word is broken."""
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return f"{start}  {summary}"
    beside = width() - len(start) - 2
    indent = " " * (len(start) + 2 if beside >= LEAST else 4)
    lines = textwrap.wrap(
        summary,
        max(LEAST, width() - len(indent)),
        break_long_words=False,
        break_on_hyphens=False,
    )
    first = [f"{start}  {lines.pop(0)}"] if beside >= LEAST and lines else [start.rstrip()]
    return "\n".join([*first, *(indent + line for line in lines)])

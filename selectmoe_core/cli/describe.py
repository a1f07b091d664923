"""``selectmoe describe``."""

import textwrap
from collections.abc import Callable, Iterator

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from selectmoe_core.cli.option_text import default_text, nested_config, type_text
from selectmoe_core.cli.options import registry, width
from selectmoe_core.config import marked, plain_text
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Entry

WIDTH, LEAST = 88, 40
STEP = "    "
Wrap = Callable[[str, str, str], str]
"""Wraps a text, given the indent of its first line and that of the others."""


@click.command("describe")
@click.argument("kind", type=click.Choice([str(kind) for kind in Kind]))
@click.argument("name")
@click.pass_context
def command(context: click.Context, kind: str, name: str) -> None:
    """Show what a component does and its options."""
    entry = registry(context).get(Kind(kind), name, where="describe")
    click.echo(describe(entry, max(LEAST, min(width(), WIDTH))))


def describe(entry: Entry, width: int = WIDTH) -> str:
    """Return a component's description: summary, meaning, cost, paper, options.

    Args:
        entry: the component.
        width: the columns to wrap at; no word is broken.
    """
    component = entry.component

    def wrapped(text: str, first: str, following: str) -> str:
        return textwrap.fill(
            text,
            width,
            initial_indent=first,
            subsequent_indent=following,
            break_long_words=False,
            break_on_hyphens=False,
        )

    lines = [wrapped(f"{component.name}: {component.summary}", "", "  "), ""]
    about = component.about
    for label, text in (
        ("meaning", about.meaning),
        ("range", about.range),
        ("cost", about.cost),
        ("paper", about.paper),
    ):
        if text:
            lines.append(wrapped(f"{label}: {text}", "  ", "  " + STEP))
    if len(lines) > 2:
        lines.append("")
    fast = marked(component.config, "execution_only")
    for name, option in component.config.model_fields.items():
        lines += _option(name, option, "  ", wrapped, fast=name in fast)
    return "\n".join(lines).rstrip()


def _option(
    name: str, option: FieldInfo, indent: str, wrapped: Wrap, *, fast: bool = False
) -> Iterator[str]:
    """Yield an option's lines: name and default, type, sentence, and the options within it."""
    inside = indent + STEP
    nested = nested_config(option)
    yield wrapped(f"{name}{_default(option, nested, fast=fast)}", indent, inside + STEP)
    yield wrapped(type_text(option), inside, inside + STEP)
    yield wrapped(plain_text(option), inside, inside)
    if nested:
        for key, field in nested.model_fields.items():
            yield from _option(f"{name}.{key}", field, inside, wrapped)


def _default(option: FieldInfo, nested: type[BaseModel] | None, *, fast: bool) -> str:
    notes = ["changes speed or memory only"] if fast else []
    default = option.get_default(call_default_factory=True)
    if option.is_required():
        notes.insert(0, "required")
    elif default is None:
        notes.insert(0, "not set by default")
    written = not notes or notes[0].startswith("changes")
    value = f" = {default_text(default)}" if written and not nested else ""
    return f"{value}  ({'; '.join(notes)})" if notes else value

"""``selectmoe describe``."""

import json
from collections.abc import Callable
from typing import Any

import click
from pydantic.fields import FieldInfo

from selectmoe_core.cli.options import registry
from selectmoe_core.config import marked, plain_text
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Entry

INDENT = " " * 6


def _written(option: FieldInfo) -> str:
    return f"{INDENT}{option.description}"


def _wrapped(option: FieldInfo) -> str:
    return click.wrap_text(plain_text(option), 80, INDENT, INDENT)


@click.command("describe")
@click.argument("kind", type=click.Choice([str(kind) for kind in Kind]))
@click.argument("name")
@click.pass_context
def command(context: click.Context, kind: str, name: str) -> None:
    """Show what a component does and its options."""
    entry = registry(context).get(Kind(kind), name, where="describe")
    click.echo(describe(entry, _wrapped))


def describe(entry: Entry, about_option: Callable[[FieldInfo], str] = _written) -> str:
    """Return a component's description: summary, meaning, cost, paper, options.

    Args:
        entry: the component.
        about_option: how the text of an option is shown; by default as it is written.
    """
    component = entry.component
    lines = [f"{component.name}: {component.summary}", ""]
    about = component.about
    for label, text in (
        ("meaning", about.meaning),
        ("range", about.range),
        ("cost", about.cost),
        ("paper", about.paper),
    ):
        if text:
            lines.append(f"  {label}: {text}")
    if len(lines) > 2:
        lines.append("")
    fast = marked(component.config, "execution_only")
    for option, field in component.config.model_fields.items():
        default = "required" if field.is_required() else _shown(field.get_default())
        note = "  (speed or memory only)" if option in fast else ""
        lines += [f"  {option} = {default}{note}", about_option(field)]
    return "\n".join(lines).rstrip()


def _shown(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if value is None:
        return "none"
    return json.dumps(value, default=str, ensure_ascii=False)

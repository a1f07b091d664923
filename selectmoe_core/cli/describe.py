"""``selectmoe describe``."""

import json
from typing import Any

import click

from selectmoe_core.cli.options import registry
from selectmoe_core.component import Kind
from selectmoe_core.config import marked
from selectmoe_core.registry import Entry


@click.command("describe")
@click.argument("kind", type=click.Choice([str(kind) for kind in Kind]))
@click.argument("name")
@click.pass_context
def command(context: click.Context, kind: str, name: str) -> None:
    """Show what a component does and its options."""
    entry = registry(context).get(Kind(kind), name, where="describe")
    click.echo(describe(entry))


def describe(entry: Entry) -> str:
    """Return a component's description: summary, meaning, cost, paper, options."""
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
        lines += [f"  {option} = {default}{note}", f"      {field.description}"]
    return "\n".join(lines).rstrip()


def _shown(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if value is None:
        return "none"
    return json.dumps(value, default=str, ensure_ascii=False)

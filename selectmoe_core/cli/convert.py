"""``selectmoe convert``."""

from pathlib import Path

import click

from selectmoe_core.cli.options import registry


@click.command("convert")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--use", default="olmoe-trashcan", show_default=True, help="The converter.")
@click.option("--revision", help="The hub revision of MODEL.")
@click.option("--seed", default=42, show_default=True, help="Seed of the new gate rows.")
@click.pass_context
def command(
    context: click.Context,
    model: str,
    out: Path,
    options: tuple[str, ...],
    use: str,
    revision: str | None,
    seed: int,
) -> None:
    """Turn a mixture-of-experts model into a Select-MoE model.

    MODEL is a hub id, a folder or bundled:NAME; the checkpoint is written to OUT.
    """
    from selectmoe_core.single import convert_model, print_facts

    facts = convert_model(registry(context), model, revision, out, options, use, seed)
    print_facts(facts)

"""``selectmoe verify``."""

from pathlib import Path

import click

from selectmoe_core.cli.options import registry


@click.command("verify")
@click.argument("converted", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("original")
@click.option("--use", default="olmoe-trashcan", show_default=True, help="The converter.")
@click.option("--revision", help="The hub revision of ORIGINAL.")
@click.option(
    "--tolerance",
    default=0.0,
    show_default=True,
    help="The largest absolute difference of a tensor that counts as equal.",
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What the logits are compared in.",
)
@click.option("--device", default="cpu", show_default=True, help="Where the logits are computed.")
@click.option("--logits/--no-logits", default=True, help="Compare logits too, or tensors only.")
@click.pass_context
def command(
    context: click.Context,
    converted: Path,
    original: str,
    use: str,
    revision: str | None,
    tolerance: float,
    dtype: str,
    device: str,
    logits: bool,
) -> None:
    """Compare a Select-MoE model with its original.

    Compares tensor by tensor, then the logits on sample text with the trash cans switched off.
    """
    from selectmoe_core.plugin.protocols import VerifyOptions
    from selectmoe_core.single import print_facts, verify_model

    how = VerifyOptions(tolerance, dtype, device, logits)
    print_facts(verify_model(registry(context), converted, original, revision, use, how))

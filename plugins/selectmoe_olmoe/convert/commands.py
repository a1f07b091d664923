"""The commands ``selectmoe convert`` and ``selectmoe verify``."""

from pathlib import Path

import click

from selectmoe_core import (
    ModelError,
    ModelRef,
    RecipeError,
    VerifyOptions,
    command_job,
    parse_options,
    print_facts,
    resolve_device,
)
from selectmoe_core.models import model_folder
from selectmoe_olmoe.config import TrashcanConfig


@click.command("convert")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--revision", help="The hub revision of MODEL.")
@click.option(
    "--seed",
    default=42,
    show_default=True,
    type=click.IntRange(0, (1 << 32) - 1),
    help="Seed of the new gate rows.",
)
@click.pass_context
def convert(
    context: click.Context,
    model: str,
    out: Path,
    options: tuple[str, ...],
    revision: str | None,
    seed: int,
) -> None:
    """Turn a mixture-of-experts model into a Select-MoE model.

    MODEL is a hub id, a folder or bundled:NAME; the checkpoint is written to OUT. KEY=VALUE are
    options of the converter olmoe-trashcan, as in num_trash_experts=4.
    """
    from selectmoe_olmoe.convert.converter import TrashcanConverter

    converter = TrashcanConverter(parse_options(TrashcanConfig, options, where="convert"))
    _check_new(out)
    source = ModelRef(model, revision)
    with command_job(context, seed=seed, model=source) as job:
        try:  # a mistake in the source is wrong input: nothing has been written yet
            job.models.find(source)
            converter.check(job)
        except ModelError as error:
            raise RecipeError(str(error), hint=error.hint) from None
        print_facts(converter.convert(source, out, job))


def _check_new(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out} is not a folder", hint="name a new folder")
    if out.exists() and any(out.iterdir()):
        raise RecipeError(f"{out} is not empty", hint="name a new folder")


@click.command("verify")
@click.argument("converted", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("original")
@click.option("--revision", help="The hub revision of ORIGINAL.")
@click.option(
    "--tolerance",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="The largest absolute difference of a tensor that counts as equal.",
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Data type of the comparison of logits.",
)
@click.option("--device", default="cpu", show_default=True, help="Device that computes the logits.")
@click.option("--logits/--no-logits", default=True, help="Compare logits too, or only tensors.")
@click.pass_context
def verify(
    context: click.Context,
    converted: Path,
    original: str,
    revision: str | None,
    tolerance: float,
    dtype: str,
    device: str,
    logits: bool,
) -> None:
    """Compare a Select-MoE model with its original.

    Tensor by tensor, then the logits on sample text with the trash cans switched off. CONVERTED is
    the folder of the model, or of a finished stage convert.
    """
    from selectmoe_olmoe.convert.verify import verify_converted

    how = VerifyOptions(tolerance, dtype, resolve_device(device), logits)
    with command_job(context) as job:
        folder = model_folder(converted)
        if base := job.models.base_of(folder):
            raise RecipeError(
                f"{converted} was warmed up: its router differs from the original's on purpose",
                hint=f"verify the converted model that it started from: {base}",
            )
        print_facts(verify_converted(folder, ModelRef(original, revision), how, job))

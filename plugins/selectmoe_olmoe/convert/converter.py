"""The converter ``olmoe-trashcan``: a pretrained OLMoE becomes a Select-MoE model."""

from pathlib import Path

from selectmoe_core import Facts, Job, ModelError, ModelRef, VerifyOptions
from selectmoe_olmoe.config import TrashcanConfig
from selectmoe_olmoe.convert.checkpoint import Checkpoint
from selectmoe_olmoe.convert.shards import convert_checkpoint
from selectmoe_olmoe.convert.trash_rows import trash_count

NAME = "olmoe-trashcan"
VERSION = 2
"""Increased when the same options give other bytes."""


class TrashcanConverter:
    """Adds trash-can rows to every gate of a checkpoint, shard by shard."""

    def __init__(self, config: TrashcanConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Read the headers of a model that is on this machine; see ``Checkpoint.open``."""
        model = job.inputs.model
        if model is not None and (folder := job.models.local(model)) is not None:
            _open(folder)

    def convert(self, model: ModelRef, out: Path, job: Job) -> Facts:
        """Write the Select-MoE checkpoint and ``selector.json`` into ``out``.

        The kernel copies unchanged data, for models of any size; an interrupted conversion
        continues with the next shard.

        Raises:
            ModelError: Not a checkpoint of a known family, or a damaged one.
            StageError: The disk is full, or another conversion writes into ``out``.
        """
        source = _open(job.models.find(model))
        shape = source.shape
        facts = {
            "experts": shape.experts,
            "trash_cans": trash_count(self.config, shape),
            "top_k": shape.top_k,
        }
        selector = {**facts, "converter": NAME, "version": VERSION}
        total = sum((source.folder / shard).stat().st_size for shard in source.shards)
        with job.progress.task("convert", total, "bytes") as advance:
            written = convert_checkpoint(source, out, self.config, job.seed, selector, advance)
        return {
            **facts,
            "layers": shape.layers,
            "tensors": len(source.where),
            "shards": len(source.shards),
            "bytes": written,
        }

    def verify(self, converted: Path, original: ModelRef, how: VerifyOptions, job: Job) -> Facts:
        """Compare the converted model with its original; see ``verify_converted``."""
        from selectmoe_olmoe.convert.verify import verify_converted

        return verify_converted(converted, original, how, job)


def _open(folder: Path) -> Checkpoint:
    if folder.is_file():
        raise ModelError(
            f"{folder} is a file; the converter reads a folder of safetensors shards",
            hint="name the model's folder or hub id",
        )
    return Checkpoint.open(folder, converted=False)

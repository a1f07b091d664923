"""A checkpoint on disk: which shard holds which tensor, and which tensors must exist."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from selectmoe_core import ModelError
from selectmoe_core.models import CONFIG, INDEX, read_config, read_index
from selectmoe_olmoe.family import FAMILIES, MoeFamily, MoeShape

SINGLE = "model.safetensors"
AGAIN = "download the checkpoint again"
SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``config.json`` and safetensors shards.

    Attributes:
        folder: Where it is.
        family: What the names in it mean.
        config: ``config.json`` as written.
        shards: File name of each shard -> names of the tensors in it, in the file's order.
        index: The index file's content, or ``None`` for a single file.
    """

    folder: Path
    family: MoeFamily
    config: Mapping[str, Any]
    shards: Mapping[str, tuple[str, ...]]
    index: Mapping[str, Any] | None

    @classmethod
    def open(cls, folder: Path, *, converted: bool) -> "Checkpoint":
        """Read the headers of all shards; no tensor is read.

        Args:
            folder: The checkpoint.
            converted: Whether it is a Select-MoE model, or a model of one of the families.

        Raises:
            ModelError: the model is of another kind, or a file or tensor is damaged or missing.
        """
        config = read_config(folder)
        family = _family(folder, config.get("model_type"), converted=converted)
        index = read_index(folder)
        shards = {name: _tensor_names(folder / name) for name in _shard_names(folder, index)}
        checkpoint = cls(folder, family, config, shards, index)
        checkpoint._check_index()
        checkpoint._check_complete()
        return checkpoint

    @property
    def where(self) -> dict[str, str]:
        """Tensor name -> the shard that holds it."""
        return {tensor: shard for shard, tensors in self.shards.items() for tensor in tensors}

    @cached_property
    def shape(self) -> MoeShape:
        """The sizes of the model."""
        return MoeShape.of(self.config, self.family, str(self.folder / CONFIG))

    @property
    def gates(self) -> dict[str, int]:
        """The name of each gate weight -> its layer."""
        return self.family.gates(self.shape.layers)

    def _check_index(self) -> None:
        if self.index is None:
            return
        for tensor, shard in self.index["weight_map"].items():
            if tensor not in self.shards[shard]:
                raise ModelError(
                    f"{self.folder / shard}: the index puts {tensor} here, but it is missing",
                    hint=AGAIN,
                )

    def _check_complete(self) -> None:
        present = self.where
        expected = self.shape.tensors(self.family)
        # Lazily: the sizes of a damaged configuration may ask for more names than memory holds.
        missing = list(islice((name for name in expected if name not in present), SHOWN + 1))
        if missing:
            total = self.shape.count(self.family)
            more = " and more" if len(missing) > SHOWN else ""
            raise ModelError(
                f"{self.folder}: missing tensors: {', '.join(missing[:SHOWN])}{more}; {CONFIG} "
                f"asks for {total:,} in all, but {len(present):,} are here",
                hint=f"{AGAIN}, in the layout of one tensor per expert",
            )


def _family(folder: Path, model_type: object, *, converted: bool) -> MoeFamily:
    types = {entry.selector_type if converted else entry.model_type: entry for entry in FAMILIES}
    if isinstance(model_type, str) and model_type in types:
        return types[model_type]
    kind = "a Select-MoE model" if converted else "a model that can be converted"
    raise ModelError(
        f"{folder}: model_type is {model_type!r}, which is not {kind} ({', '.join(types)})",
        hint="name the folder that conversion wrote"
        if converted
        else f"name such a checkpoint, such as {' or '.join(entry.example for entry in FAMILIES)}",
    )


@contextmanager
def open_shard(path: Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """Open a shard for reading tensors on the CPU, memory-mapped; ``np`` imports no torch.

    Raises:
        ModelError: the file is missing, incomplete or not a safetensors file.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: not a regular file", hint=AGAIN)
    try:
        with safe_open(path, framework=framework) as shard:
            yield shard
    except FileNotFoundError:
        raise ModelError(f"{path}: this shard is missing", hint=AGAIN) from None
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged or incomplete ({error})", hint=AGAIN) from None


def _tensor_names(path: Path) -> tuple[str, ...]:
    with open_shard(path, "np") as shard:
        return tuple(shard.keys())


def _shard_names(folder: Path, index: Mapping[str, Any] | None) -> list[str]:
    if index is not None:
        return sorted(set(index["weight_map"].values()))
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: there are several shards, but {INDEX} is missing",
            hint=f"download {INDEX}, which says which shard holds which tensor",
        )
    if any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder}: the weights are pickled (.bin), which can run code when read",
            hint="load the model with transformers and save it as safetensors with save_pretrained",
        )
    raise ModelError(f"{folder}: no weights (*.safetensors)", hint=AGAIN)

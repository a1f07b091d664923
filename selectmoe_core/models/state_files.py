"""State files: trained tensors that ``torch.save`` wrote, without the model they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selectmoe_core.errors import ModelError, listing, shown

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]
STATE = (".pt", ".pth", ".bin")
INSIDE = "full_rank_weights"
"""The key under which the tensors stand, if the file holds more than tensors."""
HINT = "name the file full_rank_weights.pt of a warm-up, or a folder of safetensors"


def is_state_file(path: Path) -> bool:
    """Return whether a path is a file of trained tensors, by its ending."""
    return path.suffix in STATE and path.is_file()


def state_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a file's tensors; their values are not read.

    Raises:
        ModelError: see ``load_state``.
    """
    return {name: tuple(tensor.shape) for name, tensor in _read(path, "meta").items()}


def load_state(path: Path) -> "dict[str, torch.Tensor]":
    """Return the tensors of a state file by name; no code in the file can run.

    Raises:
        ModelError: it cannot be read, or holds something else than tensors by name.
    """
    return _read(path, "cpu")


def _read(path: Path, device: str) -> "dict[str, torch.Tensor]":
    import torch

    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint=HINT) from None
    except Exception as error:  # a broken or hostile file can make the unpickler raise anything
        what = "it is damaged, was not written by torch.save, or holds more than tensors"
        raise ModelError(f"{path} cannot be read as a state file: {what}", hint=HINT) from error
    tensors = found.get(INSIDE, found) if isinstance(found, dict) else found
    if not isinstance(tensors, dict) or not tensors:
        raise ModelError(f"{path} holds no tensors by name, but {shown(found)}", hint=HINT)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            what = f"{path}: the entry {shown(name)} is no tensor but {type(tensor).__name__}"
            raise ModelError(what, hint=HINT)
    return tensors


def check_fit(
    path: Path, shapes: dict[str, tuple[int, ...]], own: dict[str, Any], base: str
) -> None:
    """Raise unless every tensor of a state file has its place in the base.

    Args:
        path: the state file.
        shapes: its tensors' shapes by name.
        own: the shapes of the base by name.
        base: the name of the base, for the message.

    Raises:
        ModelError: names the tensors that the base lacks, or has in another shape.
    """
    strange = [name for name in shapes if name not in own]
    if strange:
        raise ModelError(
            f"{path}: {len(strange)} of {len(shapes)} tensors are not in {base}: "
            f"{listing(strange, 3)}",
            hint="'base_model' must be the converted model that the warm-up started from",
        )
    for name, shape in shapes.items():
        if shape != tuple(own[name]):
            raise ModelError(
                f"{path}: {name} has the shape {shape}, and in {base} {tuple(own[name])}",
                hint="'base_model' must be the converted model that the warm-up started from",
            )

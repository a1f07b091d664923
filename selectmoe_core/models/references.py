"""References of models, and the base that an adapter or partial checkpoint names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.config import real_path
from selectmoe_core.errors import ModelError
from selectmoe_core.models.configuration import CONFIG, read_object
from selectmoe_core.models.files import ADAPTER, PARTIAL

BASE = "in adapter_config.json, set base_model_name_or_path to the base's folder or hub id"


@dataclass(frozen=True)
class ModelRef:
    """The reference of a model.

    Attributes:
        location: hub id, folder, GGUF file or ``bundled:NAME``.
        revision: a hub revision; preferably a commit hash.
        trust_remote_code: allow Python code of the checkpoint to run; only a recipe can set it.
        base: the model that a state file (``*.pt``) belongs to; it holds trained tensors alone.
    """

    location: str
    revision: str | None = None
    trust_remote_code: bool = False
    base: str | None = None

    def __str__(self) -> str:
        return f"{self.location}@{self.revision}" if self.revision else self.location


def model_folder(path: Path) -> Path:
    """Return a model's folder: the given one, or ``model`` in that of a finished stage."""
    files = (CONFIG, ADAPTER, PARTIAL)
    inner = path / "model"
    if not path.is_dir() or any((path / name).exists() for name in files):
        return path
    return inner if any((inner / name).is_file() for name in files) else path


def named_base(path: Path) -> ModelRef | None:
    """Return the base that a folder names as its own; ``None`` if it is a whole model.

    Raises:
        ModelError: an adapter or partial checkpoint that names none.
    """
    if (path / PARTIAL).is_file():
        named = read_object(path / PARTIAL).get("base")
        named = named if isinstance(named, dict) else {}
        location = named.get("location")
        if not isinstance(location, str):
            raise ModelError(f"{path / PARTIAL} names no base", hint="run the warm-up again")
        if location.startswith("."):
            location = str(real_path(path / location))
        return ModelRef(location, _revision(named, path / PARTIAL))
    if (path / ADAPTER).is_file():
        adapter = read_object(path / ADAPTER)
        location = adapter.get("base_model_name_or_path")
        if not isinstance(location, str) or not location:
            raise ModelError(f"{path / ADAPTER} names no base model", hint=BASE)
        return ModelRef(location, _revision(adapter, path / ADAPTER))
    return None


def _revision(table: Mapping[str, Any], file: Path) -> str | None:
    revision = table.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise ModelError(f"{file}: revision must be text, got {revision!r}", hint=BASE)
    return revision

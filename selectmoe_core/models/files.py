"""The files that describe a model: read within limits, and checked before torch is needed."""

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.errors import ModelError, shown
from selectmoe_core.models.configuration import CONFIG, COPY_AGAIN
from selectmoe_core.paths import LARGEST_FILE
from selectmoe_core.store import MANIFEST

ADAPTER = "adapter_config.json"
PARTIAL = "partial.json"
MOST_TEMPLATE_BYTES = 1 << 20
DESCRIBING = (".json", ".jinja", ".txt", ".model")


def check_file(path: Path) -> None:
    """Raise a ``ModelError`` unless a describing file is a regular one of a plausible size."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint=COPY_AGAIN) from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: not a regular file", hint=COPY_AGAIN)
    most = MOST_TEMPLATE_BYTES if path.suffix == ".jinja" else LARGEST_FILE
    if status.st_size > most:
        raise ModelError(
            f"{path} has {status.st_size:,} bytes, and such a file at most {most:,}",
            hint=COPY_AGAIN,
        )


def check_folder(path: Path, name: str) -> None:
    """Raise a ``ModelError`` where a folder holds no model; say where one is, if it is near."""
    if not any((path / file).exists() for file in (CONFIG, ADAPTER, PARTIAL)):
        if any(path.glob("*.gguf")):
            raise ModelError(f"{name} holds several GGUF files", hint="name one of the files")
        raise ModelError(f"{name} is not a model: it has no {CONFIG}", hint=_near(path))
    for file in sorted(path.iterdir()):
        if file.suffix in DESCRIBING and not file.is_dir():
            check_file(file)
        if file.suffix == ".safetensors" and not file.is_file():  # who opens a pipe waits for ever
            raise ModelError(f"{file}: not a regular file", hint=COPY_AGAIN)


def _near(path: Path) -> str:
    """Return a hint: the model inside a folder of ours, or what a model's folder holds."""
    inner = path / "model"
    if any((inner / file).is_file() for file in (CONFIG, ADAPTER, PARTIAL)):
        kind = "the folder of a finished stage" if (path / MANIFEST).is_file() else "a folder"
        return f"it is {kind} with a model inside: name {inner}"
    return "name a folder with config.json and *.safetensors, a GGUF file or a hub id"


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Raise a ``ModelError`` for a configuration that cannot be a model's.

    Fields that only transformers knows are left to it.
    """
    if not isinstance(config.get("model_type", ""), str):
        kind = shown(config["model_type"])
        raise ModelError(f"{name}: {CONFIG} says model_type is {kind}, not a text", hint=COPY_AGAIN)
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{name} is quantised ({method or 'method unknown'}), which selectmoe cannot load",
            hint="name the unquantised model; [train] quantization = 'nf4' holds its weights in "
            "4 bits",
        )


def check_layers(config: Mapping[str, Any], path: Path, name: str) -> None:
    """Raise a ``ModelError`` where a configuration has more layers than there are tensors."""
    layers, weights = config.get("num_hidden_layers"), sorted(path.glob("*.safetensors"))
    if not isinstance(layers, int) or not weights:
        return
    tensors = sum(_tensors(file) for file in weights)
    if layers > tensors:
        raise ModelError(
            f"{name}: {CONFIG} says num_hidden_layers = {layers:,}, and its files hold "
            f"{tensors:,} tensors",
            hint=COPY_AGAIN,
        )


def _tensors(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return len(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be loaded: {error}", hint=COPY_AGAIN) from None


def config_digest(path: Path) -> str | None:
    """Identify a base cheaply: its configuration and the sizes of its weight files."""
    if path.is_file() or not (path / CONFIG).is_file():
        return None
    sizes = sorted((file.name, file.stat().st_size) for file in path.glob("*.safetensors"))
    content = (path / CONFIG).read_bytes() + json.dumps(sizes).encode()
    return hashlib.sha256(content).hexdigest()


def gguf_file(path: Path) -> Path | None:
    """Return the GGUF file that a path names or that stands alone in its folder, if any."""
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        raise ModelError(f"{path} is a file, not a model folder", hint="name its folder")
    if (path / CONFIG).is_file():
        return None
    found = sorted(path.glob("*.gguf"))
    return found[0] if len(found) == 1 else None

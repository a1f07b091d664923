"""Finding and loading a model by its reference: every weight is loaded, or there is an error.

A reference is a hub id, a folder, a GGUF file (or a folder with one), ``bundled:NAME``, a PEFT
adapter, or a partial checkpoint: some trained tensors and a pointer to their base
(``partial.json``).
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selectmoe_core.config import real_path, suggest, user_path
from selectmoe_core.errors import ModelError
from selectmoe_core.models import hub
from selectmoe_core.models.configuration import CONFIG, read_config, read_object, read_selector
from selectmoe_core.models.files import (
    PARTIAL,
    check_config,
    check_folder,
    check_layers,
    config_digest,
    gguf_file,
)
from selectmoe_core.models.references import BASE, ModelRef, named_base
from selectmoe_core.models.state_files import is_state_file, state_shapes
from selectmoe_core.models.weights import (
    adapt,
    lay_over,
    lay_state_over,
    load_folder,
    load_gguf,
    load_tokenizer,
    transformers_config,
)
from selectmoe_core.runtime.writing import give_usual_permissions
from selectmoe_core.store import FileHashes, write_json

if TYPE_CHECKING:
    import torch

BUNDLED = "bundled:"
PARTIAL_WEIGHTS = "partial.safetensors"
COMMIT = re.compile("[0-9a-f]{40}")

__all__ = ["BUNDLED", "ModelRef", "Models", "TargetModel", "save_partial"]


@dataclass(frozen=True)
class TargetModel:
    """A model to evaluate: a base, and the adapter trained on it, if any."""

    base: ModelRef
    adapter: Path | None = None


@dataclass(frozen=True)
class Models:
    """Finds and loads models.

    Attributes:
        bundled: folders of models that plugins ship, by name.
        model_types: functions that make transformers know a model type, by type.
    """

    bundled: Mapping[str, Path] = field(default_factory=dict)
    model_types: Mapping[str, Callable[[], None]] = field(default_factory=dict)

    def local(self, ref: ModelRef) -> Path | None:
        """Return the folder or file of a model on this machine, without using the network."""
        if ref.location.startswith(BUNDLED):
            return self._bundled(ref.location.removeprefix(BUNDLED))
        path = user_path(ref.location)
        if os.path.exists(path):  # noqa: PTH110  (no error for a name that is too long)
            return real_path(path)
        if _looks_like_path(ref.location):
            raise ModelError(
                f"there is no model at {ref.location}", hint="check the path, or name a hub id"
            )
        return hub.snapshot(ref.location, ref.revision)

    def find(self, ref: ModelRef) -> Path:
        """Return the folder or file of a model; a missing hub model is downloaded."""
        path = self.local(ref)
        if path is None or (hub.is_snapshot(path) and not hub.is_whole(path)):
            return hub.download(ref.location, ref.revision)
        return path

    def config(self, ref: ModelRef) -> dict[str, Any] | None:
        """Return ``config.json`` if available; of an adapter or partial checkpoint, its base's."""
        path = self.local(ref)
        if path is None:
            return None
        if base := self._below(ref, path):
            return self.config(base)
        if path.is_file():
            return None
        return read_config(path) if (path / CONFIG).exists() else None

    def selector(self, ref: ModelRef) -> dict[str, Any]:
        """Return the content of a model's ``selector.json``; empty if there is none.

        Raises:
            ModelError: it contradicts the model's configuration.
        """
        path = self.local(ref)
        if path is not None and is_state_file(path):
            return self.selector(self._base_of_state(ref, path))
        if path is None or path.is_file():
            return {}
        base = self.base_of(path)
        file = f"{CONFIG} of {base}" if base else str(path / CONFIG)
        return read_selector(path, self.config(ref) or {}, file)

    def check_place(self, ref: ModelRef) -> None:
        """Raise a ``ModelError`` if a path or bundled name leads to no model; reads little."""
        path = self.local(ref)
        if path is not None and is_state_file(path):
            self.check_place(self._base_of_state(ref, path))
        elif path is not None and gguf_file(path) is None:
            check_folder(path, str(ref))

    def check(self, ref: ModelRef) -> None:
        """Raise a ``ModelError`` if it is clear without loading weights that loading will fail.

        A folder without a model, a configuration that transformers does not accept, a quantised
        checkpoint, an adapter whose base is missing, code of the checkpoint that is not allowed.
        """
        path = self.find(ref)
        if is_state_file(path):
            self.check(self._base_of_state(ref, path))
            state_shapes(path)
            return
        if gguf_file(path) is not None:
            return
        check_folder(path, str(ref))
        if base := self.base_of(path):
            self.check(base)
            return
        config = read_config(path)
        check_config(config, str(ref))
        check_layers(config, path, str(ref))
        self._register()
        transformers_config(path, str(ref), trust_remote_code=ref.trust_remote_code)

    def digest(self, ref: ModelRef, hashes: FileHashes) -> str | None:
        """Return what identifies a model's content; ``None`` if hashing it would take long.

        A folder is identified by its files, a hub model by its commit. A hub model that is not on
        this machine is identified by its name and revision.
        """
        path = self.local(ref)
        if path is None:
            return f"hub:{ref.location}@{ref.revision or 'main'}"
        if hub.is_snapshot(path):
            return f"hub:{ref.location}@{path.name}"
        own = hashes.of_tree(path)
        base = self._below(ref, path)
        if own is None or base is None:
            return own
        of_base = self.digest(base, hashes)
        return of_base and hashlib.sha256(f"{own} {of_base}".encode()).hexdigest()

    def settle(self, ref: ModelRef) -> None:
        """Download a hub model whose commit is not known, so that ``digest`` can use the commit."""
        if not COMMIT.fullmatch(ref.revision or ""):
            self.find(ref)

    def tokenizer(self, ref: ModelRef) -> Any:  # noqa: ANN401
        """Return the model's tokenizer."""
        self._register()
        path = self.find(ref)
        if is_state_file(path):
            return self.tokenizer(self._base_of_state(ref, path))
        if (gguf := gguf_file(path)) is not None:
            return load_tokenizer(gguf.parent, str(ref), gguf_file=gguf.name)
        check_folder(path, str(ref))
        if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            if base := self.base_of(path):
                return self.tokenizer(base)
            raise ModelError(
                f"{path} has no tokenizer",
                hint="copy the tokenizer's files into the model's folder",
            )
        return load_tokenizer(path, str(ref), trust_remote_code=ref.trust_remote_code)

    def load(
        self,
        ref: ModelRef,
        *,
        dtype: str,
        device: str,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return the causal language model in evaluation mode, every weight loaded.

        Args:
            ref: any reference; an adapter is applied to its base, and the tensors of a partial
                checkpoint replace those of its base.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            device: the device of the model.
            options: further arguments of ``from_pretrained``, e.g. ``attn_implementation``.

        Raises:
            ModelError: missing, unexpected or mismatched weights; an unknown model type; a file
                that is not valid.
        """
        self._register()
        path = self.find(ref)
        self.selector(ref)
        if is_state_file(path):
            below = self._base_of_state(ref, path)
            model = self.load(below, dtype=dtype, device="cpu", **options)
            lay_state_over(model, path, str(below))
            return model.to(device).eval()
        if gguf := gguf_file(path):
            return load_gguf(gguf, dtype, options).to(device).eval()
        check_folder(path, str(ref))
        base = self.base_of(path)
        if base is None:
            return self._load_whole(ref, path, dtype, options).to(device).eval()
        if (path / PARTIAL).is_file():
            self._check_base(base, path)
            model = self.load(base, dtype=dtype, device="cpu", **options)
            lay_over(model, path / PARTIAL_WEIGHTS)
            return model.to(device).eval()
        return self.adapt(self.load(base, dtype=dtype, device=device, **options), path)

    def _load_whole(self, ref: ModelRef, path: Path, dtype: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Return the model of a folder that holds all its weights."""
        config = read_config(path)
        check_config(config, str(ref))
        check_layers(config, path, str(ref))
        remote = ref.trust_remote_code
        return load_folder(path, str(ref), dtype, options, trust_remote_code=remote)

    def load_target(self, target: TargetModel, *, dtype: str, device: str, **options: Any) -> Any:  # noqa: ANN401
        """Return a target model, with its adapter if it has one."""
        model = self.load(target.base, dtype=dtype, device=device, **options)
        return self.adapt(model, target.adapter) if target.adapter else model

    def adapt(self, model: Any, adapter: Path) -> Any:  # noqa: ANN401
        """Return the model with a PEFT adapter applied."""
        return adapt(model, adapter)

    def _bundled(self, name: str) -> Path:
        if name not in self.bundled:
            raise ModelError(
                f"no plugin ships a model '{name}'",
                hint=suggest(name, self.bundled, otherwise="bundled models"),
            )
        return self.bundled[name]

    def _register(self) -> None:
        for register in self.model_types.values():
            register()

    def _below(self, ref: ModelRef, path: Path) -> ModelRef | None:
        """Return the model that a reference's tensors are laid over, if it is not whole itself."""
        if is_state_file(path):
            return self._base_of_state(ref, path)
        return self.base_of(path) if path.is_dir() else None

    def _base_of_state(self, ref: ModelRef, path: Path) -> ModelRef:
        if ref.base is None:
            raise ModelError(
                f"{path} holds trained tensors, not a model",
                hint='name the model that they belong to: base_model = "CONVERTED"',
            )
        return ModelRef(ref.base, trust_remote_code=ref.trust_remote_code)

    def base_of(self, path: Path) -> ModelRef | None:
        """Return the base that an adapter or partial checkpoint names; ``None`` for other folders.

        Raises:
            ModelError: it names no base, a missing one, or (through others) itself.
        """
        base, seen = named_base(path), {real_path(path)}
        further = base
        while further is not None:
            try:
                place = self.local(further)
            except ModelError as error:
                raise ModelError(f"the base of {path} is missing: {error}", hint=BASE) from None
            if place in seen:
                raise ModelError(f"{path} names itself as its base", hint=BASE)
            seen.add(place or path)
            further = named_base(place) if place is not None else None
        return base

    def _check_base(self, base: ModelRef, path: Path) -> None:
        recorded = read_object(path / PARTIAL)["base"].get("config")
        if recorded is not None and recorded != config_digest(self.find(base)):
            raise ModelError(
                f"{path} was trained on another base than the one that is now at {base}",
                hint="restore the base, or run the warm-up again",
            )


def save_partial(
    out: Path, tensors: Mapping[str, "torch.Tensor"], base: ModelRef, models: Models
) -> None:
    """Write a partial checkpoint: the trained tensors and a pointer to their base.

    The path of a base is relative to ``out``, so that both can be moved together.
    """
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    location = base.location
    path = models.find(base)
    if not location.startswith(BUNDLED) and user_path(location).exists():
        location = os.path.relpath(path, out.resolve())
        location = location if location.startswith(".") else f"./{location}"
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(owned, out / PARTIAL_WEIGHTS, metadata={"format": "pt"})
    give_usual_permissions(out / PARTIAL_WEIGHTS)
    base_entry = {
        "location": location,
        "revision": base.revision,
        "config": config_digest(path),
    }
    write_json(out / PARTIAL, {"base": base_entry, "weights": PARTIAL_WEIGHTS})


def _looks_like_path(location: str) -> bool:
    folder = location.startswith((".", "/", "~")) or location.count("/") > 1
    return folder or location.endswith((".pt", ".pth", ".bin", ".gguf", ".safetensors"))

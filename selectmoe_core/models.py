"""Any model reference, found and loaded the one way: every weight loaded, or an error.

A reference is a hub id, a folder, a GGUF file (or a folder with one), ``bundled:NAME``, a PEFT
adapter, or a partial checkpoint: some trained tensors and a pointer to their base
(``partial.json``).
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selectmoe_core.artifacts import FileHashes, write_json
from selectmoe_core.config import suggest
from selectmoe_core.errors import ModelError

if TYPE_CHECKING:
    import torch

BUNDLED = "bundled:"
PARTIAL = "partial.json"
PARTIAL_WEIGHTS = "partial.safetensors"
ADAPTER = "adapter_config.json"
SELECTOR = "selector.json"
"""Beside a selector model: experts, trash cans, top-k, which converter made it."""


@dataclass(frozen=True)
class ModelRef:
    """Where a model is.

    Attributes:
        location: hub id, folder, GGUF file or ``bundled:NAME``.
        revision: a hub revision; best a commit hash.
        trust_remote_code: run Python code that the checkpoint brings; only a recipe can say so.
    """

    location: str
    revision: str | None = None
    trust_remote_code: bool = False

    def __str__(self) -> str:
        return f"{self.location}@{self.revision}" if self.revision else self.location


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
        """Return the folder or file of a model that is on this machine, without any network."""
        if ref.location.startswith(BUNDLED):
            return self._bundled(ref.location.removeprefix(BUNDLED))
        path = Path(ref.location).expanduser()
        if path.exists():
            return path.resolve()
        if _looks_like_path(ref.location):
            raise ModelError(
                f"there is no model at {ref.location}", hint="check the path, or name a hub id"
            )
        return hub_snapshot(ref)

    def find(self, ref: ModelRef) -> Path:
        """Return the folder or file of a model; a hub model is fetched if it is not there."""
        return self.local(ref) or _download(ref)

    def config(self, ref: ModelRef) -> dict[str, Any] | None:
        """Return ``config.json`` (an adapter's or partial checkpoint's: its base's), if at hand."""
        path = self.local(ref)
        if path is None or path.is_file():
            return None
        if base := self._base_of(path):
            return self.config(base)
        file = path / "config.json"
        if not file.is_file():
            return None
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ModelError(f"{file} is not valid JSON: {error}") from None

    def digest(self, ref: ModelRef, hashes: FileHashes) -> str | None:
        """Return what identifies a model's content; ``None`` where hashing it would take long.

        A folder counts by its files, a hub model by its commit. A hub model that is not on this
        machine counts by its name and revision.
        """
        path = self.local(ref)
        if path is None:
            return f"hub:{ref.location}@{ref.revision or 'main'}"
        if path.parent.name == "snapshots":
            return f"hub:{ref.location}@{path.name}"
        own = hashes.of_tree(path)
        base = self._base_of(path) if path.is_dir() else None
        if own is None or base is None:
            return own
        of_base = self.digest(base, hashes)
        return of_base and hashlib.sha256(f"{own} {of_base}".encode()).hexdigest()

    def tokenizer(self, ref: ModelRef) -> Any:  # noqa: ANN401
        """Return the model's tokenizer."""
        from transformers import AutoTokenizer

        self._register()
        path = self.find(ref)
        if (gguf := _gguf_file(path)) is not None:
            return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            if base := self._base_of(path):
                return self.tokenizer(base)
            raise ModelError(
                f"{path} has no tokenizer", hint="copy the tokenizer's files beside the model"
            )
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=ref.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelError(f"the tokenizer of {ref} cannot be loaded: {error}") from None

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
            ref: any reference; an adapter is applied to its base, a partial checkpoint is laid
                over its base.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            device: where to put it.
            options: further arguments of ``from_pretrained``, e.g. ``attn_implementation``.

        Raises:
            ModelError: missing, unexpected or mismatched weights; an unknown model type; a file
                that is not what it should be.
        """
        self._register()
        path = self.find(ref)
        if (gguf := _gguf_file(path)) is not None:
            model = _load_gguf(gguf, dtype, options)
        elif (path / PARTIAL).is_file():
            base = self._base_of(path)
            assert base is not None
            self._check_base(base, path)
            model = self.load(base, dtype=dtype, device="cpu", **options)
            _lay_over(model, path)
        elif (path / ADAPTER).is_file():
            base = self._base_of(path)
            assert base is not None
            return self.adapt(self.load(base, dtype=dtype, device=device, **options), path)
        else:
            model = _load_folder(path, ref, dtype, options)
        return model.to(device).eval()

    def load_target(self, target: TargetModel, *, dtype: str, device: str, **options: Any) -> Any:  # noqa: ANN401
        """Return a target model, with its adapter where it has one."""
        model = self.load(target.base, dtype=dtype, device=device, **options)
        return self.adapt(model, target.adapter) if target.adapter else model

    def adapt(self, model: Any, adapter: Path) -> Any:  # noqa: ANN401
        """Return the model with a PEFT adapter applied."""
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(adapter)).eval()

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

    def _base_of(self, path: Path) -> ModelRef | None:
        if (path / PARTIAL).is_file():
            base = json.loads((path / PARTIAL).read_text(encoding="utf-8"))["base"]
            location = str(base["location"])
            if location.startswith("."):
                location = str((path / location).resolve())
            return ModelRef(location, base.get("revision"))
        if (path / ADAPTER).is_file():
            adapter = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
            return ModelRef(str(adapter["base_model_name_or_path"]), adapter.get("revision"))
        return None

    def _check_base(self, base: ModelRef, path: Path) -> None:
        recorded = json.loads((path / PARTIAL).read_text(encoding="utf-8"))["base"].get("config")
        if recorded is not None and recorded != _config_digest(self.find(base)):
            raise ModelError(
                f"{path} was trained on another base than the one now at {base}",
                hint="restore the base, or run the warm-up again",
            )


def save_partial(
    out: Path, tensors: Mapping[str, "torch.Tensor"], base: ModelRef, models: Models
) -> None:
    """Write a partial checkpoint: the trained tensors and a pointer to their base.

    A base in a folder is named relative to ``out``, so that both can move together.
    """
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    location = base.location
    path = models.find(base)
    if not location.startswith(BUNDLED) and Path(location).expanduser().exists():
        location = os.path.relpath(path, out.resolve())
        location = location if location.startswith(".") else f"./{location}"
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(owned, out / PARTIAL_WEIGHTS, metadata={"format": "pt"})
    (out / PARTIAL_WEIGHTS).chmod(0o644)
    base_entry = {
        "location": location,
        "revision": base.revision,
        "config": _config_digest(path),
    }
    write_json(out / PARTIAL, {"base": base_entry, "weights": PARTIAL_WEIGHTS})


def hub_snapshot(ref: ModelRef) -> Path | None:
    """Return the folder of a hub model in the local cache, or ``None``; no network, no imports."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    folder = cache / f"models--{ref.location.replace('/', '--')}"
    revision = ref.revision or "main"
    pointer = folder / "refs" / revision
    commit = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else revision
    snapshot = folder / "snapshots" / commit
    return snapshot if (snapshot / "config.json").exists() else None


def _looks_like_path(location: str) -> bool:
    return location.startswith((".", "/", "~")) or location.count("/") > 1


def _config_digest(path: Path) -> str | None:
    """Identify a base cheaply: its configuration and the sizes of its weight files."""
    if path.is_file() or not (path / "config.json").is_file():
        return None
    sizes = sorted((file.name, file.stat().st_size) for file in path.glob("*.safetensors"))
    content = (path / "config.json").read_bytes() + json.dumps(sizes).encode()
    return hashlib.sha256(content).hexdigest()


def _download(ref: ModelRef) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.gguf"]
    try:
        return Path(snapshot_download(ref.location, revision=ref.revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the model {ref} is neither a folder nor to be had from the hub: {first}",
            hint="check the name, HF_ENDPOINT, HF_HUB_OFFLINE and whether you must log in "
            "(hf auth login)",
        ) from None


def _gguf_file(path: Path) -> Path | None:
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        raise ModelError(f"{path} is a file, not a model folder", hint="name its folder")
    if (path / "config.json").is_file():
        return None
    found = sorted(path.glob("*.gguf"))
    return found[0] if len(found) == 1 else None


def _load_gguf(path: Path, dtype: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Load and dequantise: left quantised it can be neither saved nor trained."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model, info = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        quantization_config=GgufConfig(gguf_file=path.name, dequantize=True),
        dtype=getattr(torch, dtype),
        output_loading_info=True,
        **options,
    )
    _check_loaded(info, str(path))
    return model


def _load_folder(path: Path, ref: ModelRef, dtype: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    _check_weights_format(path)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            trust_remote_code=ref.trust_remote_code,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError) as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
            raise
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the model {ref} cannot be loaded: {first}",
            hint="is the checkpoint whole? compare the files with the place it came from",
        ) from error
    _check_loaded(info, str(ref))
    return model


def _check_weights_format(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} is not a model: it has no config.json")
    if not any(path.glob("*.safetensors")):
        hint = "selectmoe reads weights from safetensors only"
        if any(path.glob("*.bin")) or any(path.glob("*.pt")):
            hint += "; convert pickled weights with safetensors' own tools"
        raise ModelError(f"{path} has no *.safetensors", hint=hint)


def _check_loaded(info: Mapping[str, Any], name: str) -> None:
    """Raise unless every weight was loaded: transformers only prints what it left random."""
    wrong: list[str] = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        found: Iterable[Any] = info.get(kind) or ()
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in found)
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            wrong.append(f"{len(names)} {kind.removesuffix('_keys')} ({shown})")
    if wrong:
        raise ModelError(
            f"the model {name} did not load whole: {'; '.join(wrong)}",
            hint="is the checkpoint complete, and of the type its config.json says?",
        )


def _lay_over(model: Any, path: Path) -> None:  # noqa: ANN401
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path / PARTIAL_WEIGHTS)
    own = model.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(f"{path}: the trained tensor '{name}' does not fit its base")
        with torch.no_grad():
            own[name].copy_(tensor)

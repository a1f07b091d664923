"""Loading weights into models: all of them, or an error that names the missing ones."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selectmoe_core.errors import ModelError, out_of_memory
from selectmoe_core.models.configuration import CONFIG, read_config, read_index
from selectmoe_core.models.state_files import check_fit, load_state, state_shapes

ADAPTER_WEIGHTS = "adapter_model.safetensors"
SAID = 300
"""The most characters of a library's own message that are shown."""
WHOLE = "is the checkpoint complete? Compare its files with its source"


REMOTE = "trust_remote_code"


@contextmanager
def no_bars() -> Iterator[None]:
    """Switch off the progress bars of transformers and the hub, because we show our own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _whole(what: str) -> Iterator[None]:
    """Turn errors of the libraries about a checkpoint into one line that names the model.

    A wrong value can make them raise any exception, also ``TypeError`` or ``ZeroDivisionError``.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        hint = WHOLE
        if REMOTE in text:
            text = "it contains Python code, which does not run without your permission"
            hint = f"read that code; if you trust it, set {REMOTE} = true next to the model"
        elif isinstance(error, ImportError):
            hint = "install the missing package, or name another checkpoint"
        text = text if len(text) <= SAID else f"{text[: SAID - 3]}..."
        raise ModelError(f"{what} cannot be loaded: {text}", hint=hint) from error


def transformers_config(path: Path, name: str, *, trust_remote_code: bool = False) -> Any:  # noqa: ANN401
    """Return a folder's configuration, read by transformers."""
    from transformers import AutoConfig

    with _whole(f"the configuration of {name}"):
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)


def load_tokenizer(path: Path, name: str, **options: Any) -> Any:  # noqa: ANN401
    """Return the tokenizer of a folder."""
    from transformers import AutoTokenizer

    with _whole(f"the tokenizer of {name}"):
        return AutoTokenizer.from_pretrained(path, **options)


def load_gguf(path: Path, dtype: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Load and dequantise: a quantised model can be neither saved nor trained."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with _whole(f"the model {path}"), no_bars():
        model, info = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(gguf_file=path.name, dequantize=True),
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            **options,
        )
    check_loaded(info, str(path))
    return model


def load_folder(
    path: Path,
    name: str,
    dtype: str,
    options: Mapping[str, Any],
    *,
    trust_remote_code: bool = False,
) -> Any:  # noqa: ANN401
    """Load a folder of safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    _check_files(path)
    with _whole(f"the model {name}"), no_bars():
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **options,
        )
    check_loaded(info, name)
    return model


def _check_files(path: Path) -> None:
    """Raise for files that would lead libraries out of the folder or let them read forever."""
    if not (path / CONFIG).exists():
        raise ModelError(f"{path} is not a model: it has no {CONFIG}")
    read_config(path)
    read_index(path)
    if not any(path.glob("*.safetensors")):
        hint = "selectmoe reads weights only from safetensors"
        if any(path.glob("*.bin")) or any(path.glob("*.pt")):
            hint += "; convert pickled weights with safetensors' own tools"
        raise ModelError(f"{path} has no *.safetensors", hint=hint)


def check_loaded(info: Mapping[str, Any], name: str) -> None:
    """Raise unless every weight was loaded; transformers only warns about random ones."""
    wrong: list[str] = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        found: Iterable[Any] = info.get(kind) or ()
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in found)
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            wrong.append(f"{len(names)} {kind.removesuffix('_keys')} ({shown})")
    if wrong:
        raise ModelError(
            f"the model {name} did not load completely: {'; '.join(wrong)}",
            hint="is the checkpoint complete, and does its config.json name the right type?",
        )


def lay_over(model: Any, weights: Path) -> None:  # noqa: ANN401
    """Put the tensors of a partial checkpoint into its base model."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{weights} cannot be read: {error}",
            hint="run the warm-up again: --fresh warmup",
        ) from None
    own = model.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(f"{weights}: the trained tensor '{name}' does not fit its base")
        with torch.no_grad():
            own[name].copy_(tensor)


def lay_state_over(model: Any, file: Path, base: str) -> None:  # noqa: ANN401
    """Put the tensors of a state file into the model that they belong to, their names checked."""
    import torch

    own = model.state_dict()
    check_fit(file, state_shapes(file), {name: own[name].shape for name in own}, base)
    with torch.no_grad():
        for name, tensor in load_state(file).items():
            own[name].copy_(tensor)


def adapt(model: Any, adapter: Path) -> Any:  # noqa: ANN401
    """Return the model with a PEFT adapter applied, every weight of it loaded.

    Raises:
        ModelError: there are no weights, they do not fit, or there are too few or too many; peft
            only warns about random ones.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    weights = adapter / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise ModelError(f"the adapter {adapter} has no {ADAPTER_WEIGHTS}", hint=WHOLE)
    with _whole(f"the adapter {adapter}"):
        with safe_open(weights, framework="pt") as file:
            stored = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(adapter))
    own = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    info = {"missing_keys": own - stored, "unexpected_keys": stored - own}
    check_loaded(info, str(adapter))
    return adapted.eval()

"""The model with its LoRA weights: loading, saving, merging."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from selectmoe_core import Job, ModelError, ModelRef, StageError
from selectmoe_core.models import LLAMA_LIKE, give_usual_permissions
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.quantized import load_quantized

WEIGHTS = "adapter_model.safetensors"


def check_architecture(ref: ModelRef, job: Job) -> None:
    """Raise a ``ModelError`` where a model is known to be none that can be trained.

    It is an adapter, or its configuration, if available, is not of a Llama-like model.
    """
    path = job.models.local(ref)
    base = job.models.base_of(path) if path is not None else None
    if base is not None:
        raise ModelError(
            f"{ref} is an adapter of {base}, but llama-lora trains models",
            hint="train with merge = true and name its folder 'merged', or name "
            "the base to start again from it",
        )
    config = job.models.config(ref)
    found = config.get("model_type") if config else None
    if config is not None and found not in LLAMA_LIKE:
        raise ModelError(
            f"{ref} is of type {found!r}, which llama-lora cannot train",
            hint=f"it can train {', '.join(sorted(LLAMA_LIKE))}",
        )


def load_with_lora(ref: ModelRef, config: LoraTrainingConfig, job: Job) -> Any:  # noqa: ANN401
    """Load the base, frozen and in the job's dtype, with fresh LoRA weights in fp32.

    Raises:
        ModelError: the model lacks a target module.
        StageError: fp16, whose gradients underflow; no bitsandbytes for a quantised base.
    """
    if job.dtype == "float16":
        raise StageError("llama-lora cannot train in float16", hint="use bfloat16 or float32")
    if config.quantization == "none":
        base = job.models.load(ref, dtype=job.dtype, device=job.device)
    else:
        base = load_quantized(ref, job)
    _check_targets(base, ref, config)
    # Other programs do not know the names of bundled models.
    bundled = ref.location.startswith("bundled:")
    named = replace(ref, location=str(job.models.find(ref))) if bundled else ref
    return with_lora(base, named, config)


def with_lora(base: Any, ref: ModelRef, config: LoraTrainingConfig) -> Any:  # noqa: ANN401
    """Return PEFT's model around a loaded base; ``ref`` is what the adapter will name as its."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        task_type="CAUSAL_LM",
        revision=ref.revision,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
    )
    model = get_peft_model(base, lora)
    # peft names what the base was loaded from, a folder; the recipe's name may be a hub id.
    model.peft_config["default"].base_model_name_or_path = ref.location
    return model


def save_adapter(model: Any, out: Path) -> None:  # noqa: ANN401
    """Write the adapter in PEFT's layout, without asking the hub about the base's vocabulary."""
    config = model.peft_config["default"]
    targets = config.target_modules
    config.target_modules = sorted(targets)  # a set: its order would differ from run to run
    with _quiet_peft():
        model.save_pretrained(out, save_embedding_layers=False)
    config.target_modules = targets
    (out / "README.md").unlink(missing_ok=True)
    give_usual_permissions(out)


def lora_weights(model: Any) -> dict[str, nn.Parameter]:  # noqa: ANN401
    """Return the LoRA weights by the names that they have in the adapter's file."""
    return {
        name.replace(".default.", "."): weight
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def load_adapter(model: Any, folder: Path) -> None:  # noqa: ANN401
    """Copy a checkpoint's LoRA weights into the model.

    Raises:
        StageError: the checkpoint's LoRA weights are of other modules or another shape.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / WEIGHTS)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    if {n: w.shape for n, w in saved.items()} != {n: w.shape for n, w in own.items()}:
        raise StageError(
            f"{folder}: this checkpoint has other trained weights than the recipe",
            hint="rerun the stage: --fresh train, or --fresh warmup",
        )
    set_peft_model_state_dict(model, saved)


def save_merged(model: Any, tokenizer: Any, out: Path) -> None:  # noqa: ANN401
    """Write the full model with the LoRA weights merged in; ``model`` is used up."""
    _untie_head(model)
    merged = model.merge_and_unload()
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    give_usual_permissions(out)


def _untie_head(model: Any) -> None:  # noqa: ANN401
    """Give a head with LoRA weights its own weights: they must not go into the embeddings too."""
    base = model.get_base_model()
    head, embeddings = base.get_output_embeddings(), base.get_input_embeddings()
    if head is None or not hasattr(head, "base_layer"):
        return
    if head.base_layer.weight.data_ptr() == embeddings.weight.data_ptr():
        own = head.base_layer.weight.detach().clone()
        head.base_layer.weight = nn.Parameter(own, requires_grad=False)
        base.config.tie_word_embeddings = False
        base.all_tied_weights_keys = {}  # which save_pretrained goes by


def _check_targets(base: Any, ref: ModelRef, config: LoraTrainingConfig) -> None:  # noqa: ANN401
    found = {
        name.rpartition(".")[2]
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear)
    }
    missing = [name for name in config.target_modules if name not in found]
    if missing:
        raise ModelError(
            f"{ref} ({base.config.model_type}) has no linear layer {', '.join(missing)}",
            hint=f"its linear layers: {', '.join(sorted(found))}",
        )


@contextmanager
def _quiet_peft() -> Iterator[None]:
    logger = logging.getLogger("peft")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

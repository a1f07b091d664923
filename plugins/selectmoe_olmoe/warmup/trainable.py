"""The weights that warm-up trains, their dtype, and how the result is saved."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selectmoe_core import Job, ModelError, ModelRef, StageError, write_json
from selectmoe_core.models import SELECTOR, give_usual_permissions, save_partial
from selectmoe_core.training import gathers_weights, shards_weights
from selectmoe_olmoe.config import ContrastiveConfig, WarmupConfig
from selectmoe_olmoe.family import FAMILIES, family_of_selector
from selectmoe_olmoe.model.router import TrashcanRouter

OVERRIDES = (
    "constraint_loss_weight",
    "constraint_alpha",
    "constraint_beta",
    "balance_over",
    "router_aux_loss_coef",
)


def load_trainable(model: ModelRef, config: WarmupConfig, job: Job) -> Any:  # noqa: ANN401
    """Load the Select-MoE model and mark the trained weights.

    Trained weights are fp32, unless ``weights`` says otherwise: a bf16 weight of 0.02 cannot take a
    step below 6e-5 unless it is rounded at random. Gates are fp32 in any case, and multiply in the
    dtype of the activations; where all weights are trained, the rest is left to autocast.

    Raises:
        ModelError: not a Select-MoE model.
        StageError: fp16, whose gradients underflow.
    """
    found = job.models.config(model)
    if found is not None and family_of_selector(found.get("model_type")) is None:
        known = ", ".join(repr(family.selector_type) for family in FAMILIES)
        raise ModelError(
            f"{model} is of type {found.get('model_type')!r}, but warm-up trains {known}",
            hint="convert it first: [convert] use = 'olmoe-trashcan'",
        )
    check_dtype(config, job)
    dtype = config.weights if config.all_weights else job.dtype
    return trainable(job.models.load(model, dtype=dtype, device=job.device), config)


def trainable(loaded: Any, config: WarmupConfig) -> Any:  # noqa: ANN401
    """Mark the trained weights of a model, and return it with its LoRA weights, if any."""
    for name, value in _overrides(config).items():
        setattr(loaded.config, name, value)
    loaded.requires_grad_(config.all_weights)
    for gate in gates(loaded):
        gate.weight.data = gate.weight.data.float()
        gate.weight.requires_grad_(config.peft_mode == "full_rank")
    return _with_lora(loaded, config) if config.peft_mode == "lora" else loaded


def gathered(
    whole: Mapping[str, Tensor],
    base: ModelRef,
    config: WarmupConfig,
    job: Job,
) -> Any:  # noqa: ANN401
    """Return a plain model with the weights that were split among processes.

    Args:
        whole: all weights, by name.
        base: the model that training started from.
        config: the options.
        job: what the trainer knows of its run.
    """
    model = trainable(job.models.load(base, dtype=job.dtype, device="cpu"), config)
    model.load_state_dict(dict(whole))
    return model


def check_sharding(config: WarmupConfig) -> None:
    """Raise if weights are split among processes (FSDP) in a way that the warm-up cannot use.

    Raises:
        StageError: not all weights are trained, or not in fp32; checkpoints would be in pieces.
    """
    if not shards_weights():
        return
    if not (config.all_weights and config.weights == "float32"):
        raise StageError(
            "[warmup] FSDP can only split weights of one dtype, but here gates are fp32",
            hint="set trainable = 'all' and weights = 'float32', or run without FSDP",
        )
    if not gathers_weights():
        raise StageError(
            "[warmup] FSDP would save checkpoints in pieces, one per process",
            hint="set fsdp_state_dict_type: FULL_STATE_DICT in accelerate's configuration",
        )


def _overrides(config: WarmupConfig) -> dict[str, Any]:
    """Return the fields of the model's configuration that the options set."""
    given = {name: getattr(config, name) for name in OVERRIDES}
    return {name: value for name, value in given.items() if value is not None}


def check_dtype(config: WarmupConfig, job: Job) -> None:
    """Raise if a job computes in fp16, whose gradients underflow, or wider than its weights."""
    if config.all_weights and config.weights == "bfloat16" != job.dtype:
        raise StageError(
            f"[warmup] weights = 'bfloat16' has no use if the stage computes in {job.dtype}",
            hint="set weights = 'float32', or --dtype bfloat16",
        )
    if job.dtype == "float16":
        raise StageError("warm-up cannot train in float16", hint="use bfloat16 or float32")


def gates(model: nn.Module) -> Iterator[TrashcanRouter]:
    """Yield the routers, layer by layer."""
    return (module for module in model.modules() if isinstance(module, TrashcanRouter))


def save_trained(
    model: Any,  # noqa: ANN401
    base: ModelRef,
    out: Path,
    config: WarmupConfig,
    job: Job,
    tokenizer: Any,  # noqa: ANN401
) -> None:
    """Write the result: gates and a pointer to their base, or a checkpoint if more was trained.

    Weights are saved in the dtype of the stage; gates are then rounded exactly as in the last
    forward pass.
    """
    dtype = getattr(torch, job.dtype)
    if config.peft_mode == "lora":
        model = model.merge_and_unload()
    if config.trainable == "router":
        names = {id(gate.weight) for gate in gates(model)}
        tensors = {n: w.to(dtype) for n, w in model.named_parameters() if id(w) in names}
        save_partial(out, tensors, base, job.models)
    else:
        model.to(dtype).save_pretrained(out)
        tokenizer.save_pretrained(out)
    selector = job.models.find(base) / SELECTOR
    if selector.is_file():
        content = json.loads(selector.read_text(encoding="utf-8"))
        if isinstance(config, ContrastiveConfig):
            content["tokens"] = config.contrast_tokens  # the tokens at which the router was trained
        write_json(out / SELECTOR, content)
    give_usual_permissions(out)


def _with_lora(model: Any, config: WarmupConfig) -> Any:  # noqa: ANN401
    from peft import LoraConfig, get_peft_model

    family = next(gates(model)).family
    router = config.trainable == "router"
    rank, alpha = config.lora
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        target_modules=[] if router else family.tensors.attention_modules,
        target_parameters=[family.tensors.gate_parameter] if router else None,
        # The trash rows are new, and a low rank cannot train them enough, so gates stay full-rank.
        modules_to_save=None if router else [family.tensors.gate_module],
    )
    return get_peft_model(model, lora)

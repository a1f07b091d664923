"""Frozen weights in 4 bits (QLoRA: Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from selectmoe_core import Job, ModelError, ModelRef, StageError

KIND = "nf4"
OPTION = f"llama-lora: quantization = '{KIND}'"


def check_installed() -> None:
    """Raise a ``StageError`` if bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise StageError(
            f"{OPTION} needs bitsandbytes, which is not installed",
            hint="pip install 'selectmoe[qlora]', or use 'none'",
        )


def load_quantized(ref: ModelRef, job: Job) -> Any:  # noqa: ANN401
    """Load a base with linear layers (except the head) in 4 bits that compute in the job's dtype.

    The rest (embeddings, norms and head) has the job's dtype, as without quantisation. PEFT's own
    preparation would make it fp32, and so also the activations between layers: flash attention
    would not accept that, and norms compute in fp32 anyway.

    Raises:
        ModelError: the weights cannot be quantised.
        StageError: bitsandbytes is not installed, or cannot work on the job's device.
    """
    check_installed()
    _check_device(job.device)
    if next(job.models.find(ref).glob("*.safetensors"), None) is None:
        raise ModelError(
            f"{OPTION} can only quantise models in safetensors files, but {ref} has none",
            hint="name the folder or hub id of the unquantised model, or use 'none'",
        )
    from transformers import BitsAndBytesConfig

    kind = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=KIND,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, job.dtype),
    )
    return job.models.load(
        ref,
        dtype=job.dtype,
        device=job.device,
        quantization_config=kind,
        device_map={"": job.device},
    )


def _check_device(device: str) -> None:
    """Quantise a few numbers, because the supported devices depend on the build of bitsandbytes."""
    try:
        functional = import_module("bitsandbytes.functional")
        functional.quantize_4bit(torch.ones(64, device=device), quant_type=KIND)
    except (ImportError, OSError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        raise StageError(
            f"{OPTION}: bitsandbytes cannot work on {device}: {text}",
            hint="install a release of bitsandbytes for this device, or use 'none'",
        ) from error

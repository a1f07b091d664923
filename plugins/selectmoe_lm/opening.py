"""Loading the model and its tokenizer for the scorers."""

from typing import Any

from selectmoe_core import Job, ModelError
from selectmoe_lm.config import ON_CPU, ON_GPU
from selectmoe_lm.losses import TokenLosses


def model_of(job: Job, scorer: str, batch_tokens: int | None) -> tuple[TokenLosses, Any]:
    """Load the stage's model; return its losses and its tokenizer.

    Without ``batch_tokens`` the device decides.

    Raises:
        ModelError: the stage has no model, or it is not a causal language model.
    """
    ref = job.inputs.model
    if ref is None:
        raise ModelError(f"the {scorer} scorer has no model")
    model = job.models.load(ref, dtype=job.dtype, device=job.device)
    at_once = batch_tokens or (ON_CPU if job.device == "cpu" else ON_GPU)
    return TokenLosses(model, job.device, at_once), job.models.tokenizer(ref)

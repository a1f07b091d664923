"""How slots are shared among experts and trash cans, on one sample before and after training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from selectmoe_core import Facts
from selectmoe_olmoe.model.router import select, softmax
from selectmoe_olmoe.warmup.batches import Row, TrainingRows, collate
from selectmoe_olmoe.warmup.packed_rows import collate_packed
from selectmoe_olmoe.warmup.trainer import PLAIN, WarmupTrainer

SAMPLE = 64
"""The most examples that the load is measured on; they lie at equal steps in the pool."""
DIGITS = 5
"""Digits of a share in the facts."""


class ExpertLoad:
    """Measures the load of a model's experts, once when it is made and once for its facts.

    Every process measures the same rows by itself. Nothing is measured where weights are split
    among processes (FSDP), since one process alone cannot run the model.

    Args:
        trainer: the trainer, with the model on its device.
        rows: the examples that are trained on.
        batch: examples of a forward pass.
    """

    def __init__(self, trainer: WarmupTrainer, rows: TrainingRows, batch: int) -> None:
        self._trainer = trainer
        self._batch = batch
        measured = trainer.statistics and not trainer.is_fsdp_enabled
        places = np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).round().astype(np.int64)
        self._rows = [rows[place] for place in places.tolist()] if measured else []
        self._before = self._measure()

    def facts(self) -> Facts:
        """Measure again; return both as shares of slots, ``[layers][experts + trash]``."""
        if self._before is None:
            return {}
        after = self._measure()
        assert after is not None
        return {
            "expert_load": {
                "examples": len(self._rows),
                "tokens": sum(len(row.ids) for row in self._rows),
                "experts": self._trainer.terms.num_experts,
                "before": _rounded(self._before),
                "after": _rounded(after),
            }
        }

    @torch.no_grad()
    def _measure(self) -> Tensor | None:
        model: Any = self._trainer.model
        training = model.training
        model.eval()  # neither dropout nor random numbers
        slots: Tensor | None = None
        for start in range(0, len(self._rows), self._batch):
            own = slots_of(self._trainer, self._rows[start : start + self._batch])
            slots = own if slots is None else slots + own
        model.train(training)
        return None if slots is None else slots / slots.sum(dim=1, keepdim=True)


def slots_of(trainer: WarmupTrainer, rows: Sequence[Row]) -> Tensor:
    """Return how many slots of the rows' tokens go to each output, fp64 ``[layers, outputs]``."""
    model, terms = trainer.model, trainer.terms
    assert model is not None
    packed = trainer.kernel != PLAIN
    batch = send_to_device(collate_packed(rows) if packed else collate(rows), trainer.args.device)
    if packed:
        found = model(packed=batch)
        outputs, width = list(found.index), found.logits.shape[-1]
        keep = batch["micro"].sum(dim=0) > 0
    else:
        with trainer.compute_loss_context_manager():
            logits = model(
                input_ids=batch["input_ids"], output_router_logits=True, use_cache=False
            ).router_logits
        probs = [softmax(layer, terms.num_experts) for layer in logits]
        outputs = [select(layer, terms.num_experts, terms.top_k)[1] for layer in probs]
        width = logits[0].shape[-1]
        keep = batch["attention_mask"].reshape(-1) > 0
    counts = [torch.bincount(layer[keep].reshape(-1), minlength=width) for layer in outputs]
    return torch.stack(counts).double().cpu()


def _rounded(shares: Tensor) -> list[list[float]]:
    return [[round(share, DIGITS) for share in layer] for layer in shares.tolist()]

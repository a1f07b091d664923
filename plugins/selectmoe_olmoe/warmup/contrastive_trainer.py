"""The trainer of the contrast: clean examples and their corrupted copies in a batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.fused.training_pass import PackedOutput
from selectmoe_olmoe.warmup import packed_losses
from selectmoe_olmoe.warmup.batches import Batch
from selectmoe_olmoe.warmup.contrastive_losses import (
    cross_entropy,
    joint,
    margin,
    ordered,
    trash_logits,
)
from selectmoe_olmoe.warmup.packed_rows import Packed
from selectmoe_olmoe.warmup.pairs import clean_part
from selectmoe_olmoe.warmup.trainer import WarmupTrainer


@dataclass(frozen=True)
class Contrast:
    """How examples and their copies are contrasted.

    Attributes:
        bce_weight: weight of the cross-entropy.
        margin_weight: weight of the ranking of pairs.
        layers: weights of the layers, which sum to 1.
        together: whether all layers give one logit, or each layer alone must separate the two.
        alike: the trash logit of a router to which all outputs are alike.
    """

    bce_weight: float
    margin_weight: float
    layers: Tensor
    together: bool
    alike: float


class ContrastiveTrainer(WarmupTrainer):
    """Adds the contrast of pairs to the loss; every other term sees the clean examples alone."""

    def __init__(self, *, contrast: Contrast, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.contrast = contrast

    def objective(self, vocabulary: Tensor, logits: tuple[Tensor, ...], inputs: Batch) -> Tensor:
        """Return the sum of the loss terms, and note each."""
        clean = clean_part(inputs)
        rows, length = clean["input_ids"].shape
        routed = tuple(layer[: rows * length] for layer in logits)
        loss = super().objective(vocabulary[:rows], routed, clean)
        return loss + self._contrast(logits, inputs, rows)

    def _contrast(self, logits: tuple[Tensor, ...], inputs: Batch, rows: int) -> Tensor:
        answers = inputs["answers"]
        # A row without an answer has no copy and no part in this: any of its tokens will do.
        answers = answers | ~answers.any(dim=1, keepdim=True)
        masses = trash_logits(logits, answers, self.terms.num_experts)
        return self._pairs(masses[:, inputs["originals"]], masses[:, rows:])

    def packed_objective(self, outputs: PackedOutput, inputs: Packed) -> Tensor:
        """Return the sum of the loss terms of a packed pass, and note each."""
        loss = super().packed_objective(outputs, inputs)
        assert outputs.logits is not None
        clean, corrupted = (
            packed_losses.trash_logits(
                outputs.logits,
                inputs[f"{half}_tokens"],
                inputs[f"{half}_pairs"],
                inputs["pairs"],
                self.terms.num_experts,
            )
            for half in ("clean", "corrupted")
        )
        return loss + self._pairs(clean, corrupted)

    def _pairs(self, clean: Tensor, corrupted: Tensor) -> Tensor:
        """Return the contrast of trash logits, both ``[layers, pairs]``, and note its terms."""
        layers = self.contrast.layers.to(clean.device)
        pairs = self.totals[2].clamp(min=1)
        self.note("pair_accuracy", ordered(clean, corrupted).sum() / pairs)
        self.note("clean_trash_mass", clean.sigmoid().mean(dim=0).sum() / pairs)
        self.note("corrupted_trash_mass", corrupted.sigmoid().mean(dim=0).sum() / pairs)
        if self.contrast.together:
            alike = self.contrast.alike
            clean, corrupted = (joint(side, layers, alike) for side in (clean, corrupted))
            layers = torch.ones_like(layers[:1])
        bce = cross_entropy(clean, corrupted, layers) / pairs
        ranking = margin(clean, corrupted, layers) / pairs
        self.note("bce", bce)
        self.note("margin", ranking)
        return self.contrast.bce_weight * bce + self.contrast.margin_weight * ranking

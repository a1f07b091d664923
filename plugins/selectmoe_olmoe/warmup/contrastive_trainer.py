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
        place_weight: weight of the same contrast by the tokens around damaged places.
    """

    bce_weight: float
    margin_weight: float
    layers: Tensor
    together: bool
    alike: float
    place_weight: float = 0.0


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
        loss = self._pairs(masses[:, inputs["originals"]], masses[:, rows:])
        if not self.contrast.place_weight:
            return loss
        places, placed = inputs["places"], inputs["placed"]
        places = places | ~places.any(dim=1, keepdim=True)
        masses = trash_logits(logits, places, self.terms.num_experts)
        return loss + self._places(masses[:, inputs["originals"][placed]], masses[:, rows + placed])

    def packed_objective(self, outputs: PackedOutput, inputs: Packed) -> Tensor:
        """Return the sum of the loss terms of a packed pass, and note each."""
        loss = super().packed_objective(outputs, inputs)
        assert outputs.logits is not None
        loss = loss + self._pairs(*self._halves(outputs.logits, inputs, "pairs"))
        if self.contrast.place_weight:
            loss = loss + self._places(*self._halves(outputs.logits, inputs, "places"))
        return loss

    def _halves(self, logits: Tensor, inputs: Packed, what: str) -> tuple[Tensor, Tensor]:
        """Return the trash logits of clean and corrupted ``pairs`` or ``places``."""
        tokens = "tokens" if what == "pairs" else "place_tokens"
        clean, corrupted = (
            packed_losses.trash_logits(
                logits,
                inputs[f"{half}_{tokens}"],
                inputs[f"{half}_{what}"],
                inputs[what],
                self.terms.num_experts,
            )
            for half in ("clean", "corrupted")
        )
        return clean, corrupted

    def _pairs(self, clean: Tensor, corrupted: Tensor) -> Tensor:
        """Return the contrast of trash logits, both ``[layers, pairs]``, and note its terms."""
        pairs = self.totals[2].clamp(min=1)
        self.note("pair_accuracy", ordered(clean, corrupted).sum() / pairs)
        self.note("clean_trash_mass", clean.sigmoid().mean(dim=0).sum() / pairs)
        self.note("corrupted_trash_mass", corrupted.sigmoid().mean(dim=0).sum() / pairs)
        return self._noted(clean, corrupted)

    def _places(self, clean: Tensor, corrupted: Tensor) -> Tensor:
        """Return the contrast around damaged places, both ``[layers, places]``, and note it.

        A pair without a place counts as 0.
        """
        return self.contrast.place_weight * self._noted(clean, corrupted, "place_")

    def _noted(self, clean: Tensor, corrupted: Tensor, prefix: str = "") -> Tensor:
        """Return the weighted sum of cross-entropy and ranking loss, and note both.

        They are the pass's share of the means over all pairs.
        """
        layers = self.contrast.layers.to(clean.device)
        pairs = self.totals[2].clamp(min=1)
        if self.contrast.together:
            alike = self.contrast.alike
            clean, corrupted = (joint(side, layers, alike) for side in (clean, corrupted))
            layers = torch.ones_like(layers[:1])
        bce = cross_entropy(clean, corrupted, layers) / pairs
        ranking = margin(clean, corrupted, layers) / pairs
        self.note(f"{prefix}bce", bce)
        self.note(f"{prefix}margin", ranking)
        return self.contrast.bce_weight * bce + self.contrast.margin_weight * ranking

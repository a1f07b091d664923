"""The warm-up trainer of the contrastive objective: sound examples and their twins in a batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.contrastive import cross_entropy, margin, ordered, trash_logits
from selectmoe_olmoe.trainer import WarmupTrainer


@dataclass(frozen=True)
class Contrast:
    """The weights of the contrastive terms; ``layers`` sums to 1."""

    bce_weight: float
    margin_weight: float
    layers: Tensor


class ContrastiveTrainer(WarmupTrainer):
    """Adds the contrast of twins to the loss; every other term sees the sound examples alone."""

    def __init__(self, *, contrast: Contrast, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.contrast = contrast
        self._totals = torch.ones(3)

    def counts(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the sound examples' tokens and loss weights, and the number of twins."""
        twins = torch.tensor([float(len(batch["sound_of"]))])
        twins = twins.to(batch["input_ids"].device)
        return torch.cat([super().counts(_sound(batch)), twins])

    def objective(
        self, vocabulary: Tensor, logits: tuple[Tensor, ...], inputs: dict[str, Tensor]
    ) -> Tensor:
        """Return the sum of the loss terms, and note each."""
        sound = _sound(inputs)
        rows, length = sound["input_ids"].shape
        routed = tuple(layer[: rows * length] for layer in logits)
        loss = super().objective(vocabulary[:rows], routed, sound)
        return loss + self._contrast(logits, inputs, rows)

    def _contrast(self, logits: tuple[Tensor, ...], inputs: dict[str, Tensor], rows: int) -> Tensor:
        answers = inputs["answers"]
        # A row without an answer has no twin and no part in this: any of its tokens will do.
        answers = answers | ~answers.any(dim=1, keepdim=True)
        masses = trash_logits(logits, answers, self.terms.num_experts)
        sound, damaged = masses[:, inputs["sound_of"]], masses[:, rows:]
        layers = self.contrast.layers.to(masses.device)
        pairs = self._totals[2].clamp(min=1)
        bce = cross_entropy(sound, damaged, layers) / pairs
        ranking = margin(sound, damaged, layers) / pairs
        self.note("bce", bce)
        self.note("margin", ranking)
        self.note("pair_accuracy", ordered(sound, damaged).sum() / pairs)
        self.note("sound_trash_mass", sound.sigmoid().mean(dim=0).sum() / pairs)
        self.note("damaged_trash_mass", damaged.sigmoid().mean(dim=0).sum() / pairs)
        return self.contrast.bce_weight * bce + self.contrast.margin_weight * ranking


def _sound(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a batch without the twins, which stand last."""
    rows = len(batch["input_ids"]) - len(batch["sound_of"])
    names = ("input_ids", "attention_mask", "loss_weights")
    return {name: batch[name][:rows] for name in names}

"""The warm-up trainer of the contrastive objective: sound examples and their twins in a batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selectmoe_olmoe.fused.training_pass import PackedOutput
from selectmoe_olmoe.warmup import packed_losses
from selectmoe_olmoe.warmup.contrastive_losses import (
    cross_entropy,
    joint,
    margin,
    ordered,
    trash_logits,
)
from selectmoe_olmoe.warmup.packed_rows import Packed
from selectmoe_olmoe.warmup.trainer import WarmupTrainer


@dataclass(frozen=True)
class Contrast:
    """How twins are contrasted.

    Attributes:
        bce_weight: weight of the cross-entropy.
        margin_weight: weight of the ranking of twins.
        layers: weights of the layers, which sum to 1.
        together: whether the layers make one logit together, or have to tell each by itself.
        alike: the trash logit of a router to which all outputs are alike.
    """

    bce_weight: float
    margin_weight: float
    layers: Tensor
    together: bool
    alike: float


class ContrastiveTrainer(WarmupTrainer):
    """Adds the contrast of twins to the loss; every other term sees the sound examples alone."""

    def __init__(self, *, contrast: Contrast, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.contrast = contrast
        self._totals = torch.ones(3)

    def counts(self, batch: Packed) -> Tensor:
        """Return the sound examples' tokens and loss weights, and the number of twins."""
        packed = self.pass_tokens is not None
        pairs = batch["pairs"] if packed else len(batch["sound_of"])
        rest = super().counts(batch if packed else _sound(batch))
        return torch.cat([rest, rest.new_full((1,), float(pairs))])

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
        return self._pairs(masses[:, inputs["sound_of"]], masses[:, rows:])

    def packed_objective(self, outputs: PackedOutput, inputs: Packed) -> Tensor:
        """Return the sum of the loss terms of a packed pass, and note each."""
        loss = super().packed_objective(outputs, inputs)
        assert outputs.logits is not None
        sound, damaged = (
            packed_losses.trash_logits(
                outputs.logits,
                inputs[f"{half}_tokens"],
                inputs[f"{half}_pairs"],
                inputs["pairs"],
                self.terms.num_experts,
            )
            for half in ("sound", "twin")
        )
        return loss + self._pairs(sound, damaged)

    def _pairs(self, sound: Tensor, damaged: Tensor) -> Tensor:
        """Return the contrast of trash logits, both ``[layers, pairs]``, and note its terms."""
        layers = self.contrast.layers.to(sound.device)
        pairs = self._totals[2].clamp(min=1)
        self.note("pair_accuracy", ordered(sound, damaged).sum() / pairs)
        self.note("sound_trash_mass", sound.sigmoid().mean(dim=0).sum() / pairs)
        self.note("damaged_trash_mass", damaged.sigmoid().mean(dim=0).sum() / pairs)
        if self.contrast.together:
            sound, damaged = (joint(one, layers, self.contrast.alike) for one in (sound, damaged))
            layers = torch.ones_like(layers[:1])
        bce = cross_entropy(sound, damaged, layers) / pairs
        ranking = margin(sound, damaged, layers) / pairs
        self.note("bce", bce)
        self.note("margin", ranking)
        return self.contrast.bce_weight * bce + self.contrast.margin_weight * ranking


def _sound(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a batch without the twins, which stand last."""
    rows = len(batch["input_ids"]) - len(batch["sound_of"])
    names = ("input_ids", "attention_mask", "loss_weights")
    return {name: batch[name][:rows] for name in names}

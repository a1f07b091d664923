"""The trainer of LoRA weights: the loss of a pass, and checkpoints in PEFT's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from selectmoe_core.training import StepTrainer
from selectmoe_llama.adapter import load_adapter, save_adapter
from selectmoe_llama.packed_model import PackedModel


class PackedTrainer(StepTrainer):
    """Trains LoRA weights; checkpoints hold only them, in PEFT's layout.

    A process's share of a step is cut into passes: as many as its tokens need, the same number in
    all processes. With ``average = "token"`` every counted token of a step has the same weight,
    with ``average = "example"`` every example has.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.packed: PackedModel = self.model

    def pass_loss(self, model: nn.Module, inputs: Any) -> Tensor:  # noqa: ANN401
        """Return the weighted sum over a pass's targets, divided by the step's total weight."""
        found: Tensor = model(**inputs) / self.totals[1]
        return found

    def save_weights(self, folder: Path, whole: Mapping[str, Tensor] | None) -> None:  # noqa: ARG002
        """Write the adapter."""
        save_adapter(self.accelerator.unwrap_model(self.model).network, folder)

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Copy a checkpoint's adapter into the model."""
        load_adapter(model.network, folder)

"""The checkpoints of a warm-up, loaded for gradients: LoRA weights, moments, shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selectmoe_core import StageError
from selectmoe_core.training import KeptCheckpoint, kept_checkpoints
from selectmoe_gradient.directions import Adam, Direction, Rule
from selectmoe_gradient.projection import WeightProjection

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What gradients need of a checkpoint, on the device.

    Attributes:
        weights: LoRA weights by their names in the adapter's file.
        directions: how the gradient of each weight is preconditioned, if it is.
        root: the root of its share of the learning rates.
    """

    weights: Mapping[str, Tensor]
    directions: Mapping[str, Direction] | None
    root: float


def found_checkpoints(folder: Path) -> list[KeptCheckpoint]:
    """Return the checkpoints that the warm-up kept, the oldest first.

    Raises:
        StageError: there is none, or one is damaged.
    """
    found = kept_checkpoints(folder)
    if not found:
        raise StageError(
            "lora-gradients needs checkpoints with Adam's moments, but the warm-up kept none",
            hint='use [warmup] use = "llama-lora" with checkpoint_every = "epoch"',
        )
    return found


def shares(checkpoints: Sequence[KeptCheckpoint]) -> list[float]:
    """Return each checkpoint's share of the learning rates.

    The mean rate of the steps that led to it counts, as in LESS: with a schedule that ends at zero
    the rate of the last step alone would leave the last checkpoint out.
    """
    rates = [checkpoint.mean_learning_rate for checkpoint in checkpoints]
    if not sum(rates):
        return [1 / len(rates)] * len(rates)
    return [rate / sum(rates) for rate in rates]


def load_checkpoints(
    checkpoints: Sequence[KeptCheckpoint],
    projections: Mapping[str, WeightProjection] | None,
    rule: Rule,
    device: str,
    dtype: torch.dtype,
) -> list[LoadedCheckpoint]:
    """Load checkpoints onto the device.

    Args:
        checkpoints: of one training.
        projections: arrange the moments of each weight; ``None`` if gradients stay plain.
        rule: how moments are used.
        device: where to.
        dtype: of the LoRA weights.
    """
    made = []
    for checkpoint, share in zip(checkpoints, shares(checkpoints), strict=True):
        stored = _read(checkpoint.folder / WEIGHTS)
        weights = {name: weight.to(device, dtype) for name, weight in stored.items()}
        directions = None
        if projections is not None:
            directions = _directions(checkpoint, projections, rule, device)
        made.append(LoadedCheckpoint(weights, directions, share**0.5))
    return made


def _directions(
    checkpoint: KeptCheckpoint,
    projections: Mapping[str, WeightProjection],
    rule: Rule,
    device: str,
) -> dict[str, Direction]:
    state = checkpoint.adam
    adam = Adam(state.step, state.beta1, state.beta2, state.epsilon)
    factors = adam.factors(rule, device)
    moments = _read(checkpoint.moments)
    made = {}
    for name, projection in projections.items():
        try:
            pair = [moments[f"{name}.{kind}"] for kind in ("exp_avg", "exp_avg_sq")]
        except KeyError:
            raise StageError(
                f"{checkpoint.moments} has no moments of {name}",
                hint="run the warm-up again with --fresh warmup",
            ) from None
        first, second = (projection.arranged(x.to(device).float().flatten()) for x in pair)
        made[name] = Direction(first, second, factors)
    return made


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StageError(
            f"{path} cannot be read: {error}", hint="run the warm-up again with --fresh warmup"
        ) from None
    return found

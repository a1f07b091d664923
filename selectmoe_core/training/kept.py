"""Checkpoints that a trainer keeps for later stages: weights, learning rates, Adam's moments.

They are apart from those that a killed run continues from, which hold pickles of an optimizer.
Each is a folder ``kept/checkpoint-STEP`` with the trained weights in the layout of their trainer,
``moments.safetensors``, ``training.json`` and, written last, ``complete.json``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.errors import StageError
from selectmoe_core.store import write_json
from selectmoe_core.training.checkpoint_files import COMPLETE, checkpoint_files, is_whole

FORMAT = 1
KEPT = "kept"
MOMENTS = "moments.safetensors"
"""Adam's moments: tensors ``NAME.exp_avg`` and ``NAME.exp_avg_sq`` for each trained weight."""
TRAINING = "training.json"
AGAIN = "run the warm-up again with --fresh warmup"


@dataclass(frozen=True)
class AdamState:
    """The optimizer at a checkpoint, except its moments.

    Attributes:
        step: optimizer steps taken.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: what is added to the square root of the second moment.
    """

    step: int
    beta1: float
    beta2: float
    epsilon: float


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint that was kept.

    Attributes:
        folder: its folder, with the trained weights.
        epoch: passes over the examples until then.
        learning_rate: of the last step before it.
        mean_learning_rate: the mean over the steps since the checkpoint before it.
        adam: the optimizer.
    """

    folder: Path
    epoch: float
    learning_rate: float
    mean_learning_rate: float
    adam: AdamState

    @property
    def step(self) -> int:
        """Optimizer steps until then."""
        return self.adam.step

    @property
    def moments(self) -> Path:
        """The file of Adam's moments, see ``MOMENTS``."""
        return self.folder / MOMENTS

    def write(self) -> None:
        """Describe the files of ``folder`` that are there, and mark it as complete."""
        values: dict[str, Any] = asdict(self)
        del values["folder"]
        write_json(self.folder / TRAINING, {"format": FORMAT, **values})
        files = checkpoint_files(self.folder)
        write_json(self.folder / COMPLETE, {"step": self.step, "files": files})


def kept_checkpoints(folder: Path) -> list[KeptCheckpoint]:
    """Return the kept checkpoints in a folder of checkpoints, the oldest first.

    Raises:
        StageError: one is damaged.
    """
    found = []
    for path in (folder / KEPT).glob("checkpoint-*"):
        if not is_whole(path):
            raise StageError(f"the kept checkpoint {path} is damaged", hint=AGAIN)
        found.append(_read(path))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def _read(folder: Path) -> KeptCheckpoint:
    try:
        values: Mapping[str, Any] = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
        found = KeptCheckpoint(
            folder,
            epoch=float(values["epoch"]),
            learning_rate=float(values["learning_rate"]),
            mean_learning_rate=float(values["mean_learning_rate"]),
            adam=AdamState(**values["adam"]),
        )
        known = values["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise StageError(f"{folder / TRAINING} is damaged", hint=AGAIN) from None
    if not known:
        raise StageError(f"{folder} was written by another release", hint=AGAIN)
    return found

"""The dynamics scorer: the loss on the answers over the checkpoints of a warm-up."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selectmoe_core import Job, ModelError, Shard, ShardScores, StageError
from selectmoe_core.data import Part
from selectmoe_core.training import kept_checkpoints
from selectmoe_lm.config import DynamicsConfig
from selectmoe_lm.opening import OpenedModel, opened
from selectmoe_lm.perplexity import NOTHING_COUNTS, after_the_first

ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Points:
    """A base model, with the LoRA weights of each checkpoint or without any.

    Attributes:
        network: PEFT around the base.
        names: the adapters, the oldest first; ``None`` is the base itself.
    """

    network: Any
    names: Sequence[str | None]

    def at(self, name: str | None) -> AbstractContextManager[Any]:
        """Switch to the weights of a point inside the block."""
        if name is None:
            off: AbstractContextManager[Any] = self.network.disable_adapter()
            return off
        self.network.set_adapter(name)
        return nullcontext()


class DynamicsScorer:
    """Opens the base of a warm-up with its checkpoints; see ``DynamicsConfig``."""

    def __init__(self, config: DynamicsConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise for checkpoints that cannot be used; those of a later warm-up are not there yet."""
        if job.inputs.checkpoints is not None:
            self._folders(job.inputs.checkpoints)

    @contextmanager
    def open(self, job: Job) -> Iterator["DynamicsShardScorer"]:
        """Load the base and the adapters.

        Raises:
            StageError: there are too few checkpoints, or one is damaged.
            ModelError: they are not LoRA adapters.
        """
        assert job.inputs.checkpoints is not None
        folders = self._folders(job.inputs.checkpoints)
        base = job.models.base_of(folders[0])
        assert base is not None  # an adapter names its base, or reading it raises
        loaded = job.models.load(base, dtype=job.dtype, device=job.device)
        network = job.models.adapt(loaded, folders[0])
        names: list[str | None] = ["default"]
        for number, folder in enumerate(folders[1:], start=2):
            names.append(f"checkpoint-{number}")
            network.load_adapter(str(folder), adapter_name=names[-1])
        network.to(job.device, getattr(torch, job.dtype)).eval()
        model = opened(job, network, job.models.tokenizer(base), self.config.batch_tokens)
        points = Points(network, ([None] if self.config.from_base else []) + names)
        yield DynamicsShardScorer(self.config, model, points)

    def _folders(self, checkpoints: Path) -> list[Path]:
        folders = [checkpoint.folder for checkpoint in kept_checkpoints(checkpoints)]
        if len(folders) + self.config.from_base < 2:
            raise StageError(
                f"dynamics needs two or more points of the warm-up, and it kept {len(folders)} "
                "checkpoints",
                hint='set checkpoint_every = "epoch" in [warmup], or from_base = true in [score]',
            )
        if any(not (folder / ADAPTER).is_file() for folder in folders):
            raise ModelError(
                f"the checkpoints in {checkpoints} are not LoRA adapters",
                hint='warm up with use = "llama-lora"',
            )
        return folders


class DynamicsShardScorer:
    """Scores with loaded weights."""

    def __init__(self, config: DynamicsConfig, model: OpenedModel, points: Points) -> None:
        self._config = config
        self._model = model
        self._points = points

    def score(self, shard: Shard) -> ShardScores:
        """Return what the options measure of each example's losses.

        Details: ``losses``, the mean loss of a response token at each point, ``[examples, points]``
        in nats, and ``tokens``. An example without a response token is skipped.
        """
        encoded = self._model.read(shard)
        ids = [example.ids for example in encoded]
        masks = [after_the_first(example.parts == Part.RESPONSE) for example in encoded]
        counts = np.array([int(mask.sum()) for mask in masks], dtype=np.int32)
        losses = np.full((len(ids), len(self._points.names)), np.nan)
        for place, name in enumerate(self._points.names):
            with self._points.at(name):
                found = self._model.losses.of(ids, masks)
            for row in np.flatnonzero(counts).tolist():
                losses[row, place] = found[row].mean(dtype=np.float64)
        value = measured(losses, self._config.measure)
        return ShardScores(
            score=value if self._config.prefer == "high" else -value,
            skipped=[None if count else NOTHING_COUNTS for count in counts],
            details={"losses": losses, "tokens": counts},
        )


def measured(losses: np.ndarray, measure: str) -> np.ndarray:
    """Return a number for each row of losses ``[examples, points]``; NaN for a row of NaN."""
    if measure == "drop":
        return np.asarray(losses[:, 0] - losses[:, -1])
    if measure == "mean":
        return np.asarray(losses.mean(axis=1))
    if measure == "last":
        return np.asarray(losses[:, -1])
    return np.asarray(losses.std(axis=1))

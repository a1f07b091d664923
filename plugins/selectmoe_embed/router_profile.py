"""The embedder ``router-profile``: mean router probabilities of each layer and output."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selectmoe_core import Job, ModelError, ModelRef
from selectmoe_core.data import Part
from selectmoe_core.models import Batch, RouterSignals
from selectmoe_core.tokens import Joined, PackedBatch
from selectmoe_embed.config import RouterProfileConfig
from selectmoe_embed.pooling import packed_mean, padded_mean
from selectmoe_embed.reading import ShardReader, model_of

log = logging.getLogger("selectmoe.embed")


class RouterProfile:
    """Opens a mixture of experts; see ``RouterProfileConfig``."""

    def __init__(self, config: RouterProfileConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job, role: str) -> Iterator[ShardReader]:  # noqa: ARG002
        """Load the model and find its routers, whichever examples are embedded.

        Raises:
            ModelError: the model has no router, or fewer layers with one than asked for.
        """
        model, ref, tokenizer = model_of(job, "router-profile")
        reader = ProfileReader(model, ref, self.config, job.device)
        yield ShardReader(job, tokenizer, reader, self.config.tokens_at_once(job.device))


class ProfileReader:
    """Reads the routers of a loaded model.

    Args:
        model: a mixture of experts of transformers, or PEFT around one.
        ref: names it in messages.
        config: the options.
        device: the model's device.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        ref: ModelRef,
        config: RouterProfileConfig,
        device: str,
    ) -> None:
        self._signals = RouterSignals(model)
        count = config.first_layers or len(self._signals)
        if count > len(self._signals):
            raise ModelError(
                f"first_layers = {count}, but {ref} has {len(self._signals)} layers with a router",
                hint="correct the option 'first_layers'",
            )
        self._signals.cut_behind(count - 1)
        self._layers = range(count)
        self._answers = config.tokens == "response"
        self._packed, reason = self._signals.packed_decoder()
        self.width = count * self._signals.outputs(device)
        log.info("kernel: %s", reason if self._packed else f"transformers ({reason})")

    @property
    def packs(self) -> bool:
        """Whether the model reads packed batches."""
        return self._packed is not None

    def counted(self, tokens: Joined) -> np.ndarray:
        """Return which tokens count, bool ``[tokens]``."""
        if self._answers:
            return np.asarray(tokens.parts == Part.RESPONSE)
        return np.ones(len(tokens.ids), dtype=bool)

    def read_packed(self, batch: PackedBatch) -> Tensor:
        """Return the profiles of a batch without padding."""
        weights, means = batch.counted.float(), list[Tensor]()

        def take(_layer: int, logits: Tensor) -> None:
            means.append(packed_mean(_probabilities(logits), weights, batch.starts))

        shape = batch.positions, batch.starts, batch.longest
        self._packed.read(batch.ids, *shape, self._layers, take)
        return torch.cat(means, dim=1)

    def read_padded(self, batch: Batch) -> Tensor:
        """Return the profiles of a padded batch."""
        weights, means = batch.mask.float(), list[Tensor]()

        def take(_layer: int, logits: Tensor) -> None:
            probs = _probabilities(logits)
            means.append(padded_mean(probs.unflatten(0, batch.mask.shape), weights))

        self._signals.read(batch.ids, self._layers, take)
        return torch.cat(means, dim=1)


def _probabilities(logits: Tensor) -> Tensor:
    """Return the softmax over experts and trash cans, fp32 ``[tokens, outputs]``."""
    return torch.softmax(logits, dim=-1, dtype=torch.float32)

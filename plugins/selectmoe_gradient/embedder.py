"""The part that turns examples into projected gradients of the warm-up's LoRA weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import normalize

from selectmoe_core import Job, ModelError, ModelRef, Shard, StageError
from selectmoe_core.models import LLAMA_LIKE, padded, within_budget
from selectmoe_core.tokens import Encoded
from selectmoe_core.training import KeptCheckpoint
from selectmoe_gradient.checkpoints import LoadedCheckpoint, found_checkpoints, load_checkpoints
from selectmoe_gradient.config import CPU_TOKENS, GPU_TOKENS, LoraGradientsConfig
from selectmoe_gradient.gradients import ProjectedGradients
from selectmoe_gradient.lora_layers import copy_weights
from selectmoe_gradient.projection import Projector


class LoraGradients:
    """Opens the base of a warm-up with its checkpoints; see ``LoraGradientsConfig``."""

    def __init__(self, config: LoraGradientsConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise for a dtype, a model or checkpoints that cannot work."""
        if job.dtype == "float16":
            raise StageError(
                "lora-gradients cannot work in float16: small gradients would become zero",
                hint="use bfloat16 or float32",
            )
        if job.inputs.model is not None:
            _check_type(job.inputs.model, job)
        if job.inputs.checkpoints is not None:
            found_checkpoints(job.inputs.checkpoints)

    @contextmanager
    def open(self, job: Job, role: Literal["pool", "target"]) -> Iterator["GradientEmbedder"]:
        """Load the base and all checkpoints.

        Raises:
            StageError: there are no checkpoints, or one is damaged.
            ModelError: the adapter or its base is not one that this can work with.
        """
        self.check(job)
        assert job.inputs.checkpoints is not None
        kept = found_checkpoints(job.inputs.checkpoints)
        base = _base_of(kept[0], job)
        dtype = getattr(torch, job.dtype)
        loaded = job.models.load(base, dtype=job.dtype, device=job.device)
        network = job.models.adapt(loaded, kept[0].folder).to(dtype).eval()
        gradients = ProjectedGradients(network, self._projector(job))
        arranging = gradients.projections if role == "pool" else None
        rule = self.config.preconditioner
        checkpoints = load_checkpoints(kept, arranging, rule, job.device, dtype)
        tokens = self.config.pass_tokens or (CPU_TOKENS if job.device == "cpu" else GPU_TOKENS)
        yield GradientEmbedder(job, job.models.tokenizer(base), gradients, checkpoints, tokens)

    def _projector(self, job: Job) -> Projector:
        compiled = self.config.compile
        return Projector(
            self.config.projection,
            self.config.dimensions,
            job.seed,
            job.device,
            compiled=job.device.startswith("cuda") if compiled is None else compiled,
        )


class GradientEmbedder:
    """Embeds shards with what was loaded.

    Args:
        job: gives the tokens.
        tokenizer: of the base.
        gradients: the model.
        checkpoints: the checkpoints, the oldest first.
        tokens: the most tokens of a pass.
    """

    def __init__(
        self,
        job: Job,
        tokenizer: Any,  # noqa: ANN401
        gradients: ProjectedGradients,
        checkpoints: Sequence[LoadedCheckpoint],
        tokens: int,
    ) -> None:
        self._job = job
        self._tokenizer = tokenizer
        self._gradients = gradients
        self._checkpoints = checkpoints
        self._tokens = tokens

    @cached_property
    def _encoded(self) -> Encoded:
        return self._job.encoded(self._tokenizer)

    def embed(self, shard: Shard) -> np.ndarray:
        """Return the vectors, fp16 ``[examples, checkpoints * dimensions]``.

        An example in which no token counts has no gradient: its vector is zeros.
        """
        examples = [self._encoded[int(row)] for row in shard.rows]
        ids = [np.asarray(example.ids) for example in examples]
        masks = [self._encoded.chat.counts(example.parts).copy() for example in examples]
        for mask in masks:
            mask[:1] = False  # the first token is not predicted
        width = self._gradients.width
        vectors = np.zeros((len(ids), width * len(self._checkpoints)), dtype=np.float16)
        for number, checkpoint in enumerate(self._checkpoints):
            block = vectors[:, number * width : (number + 1) * width]
            self._fill(block, checkpoint, ids, masks)
        return vectors

    def _fill(
        self,
        block: np.ndarray,
        checkpoint: LoadedCheckpoint,
        ids: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
    ) -> None:
        """Write the vectors at one checkpoint into ``block``, ``[examples, dimensions]``."""
        copy_weights(self._gradients.layers, checkpoint.weights)
        counted = np.array([row for row, mask in enumerate(masks) if mask.any()], dtype=np.int64)
        lengths = np.array([len(ids[row]) for row in counted], dtype=np.int64)
        for places in within_budget(lengths, self._tokens):
            batch = padded(counted[places], ids, masks, self._job.device)
            found = normalize(self._gradients.vectors(batch, checkpoint.directions))
            block[batch.rows] = (found * checkpoint.root).half().cpu().numpy()


def _base_of(checkpoint: KeptCheckpoint, job: Job) -> ModelRef:
    """Return the base of the checkpoints.

    Raises:
        ModelError: the stage names another model, or the base is of an unknown type.
    """
    base = job.models.base_of(checkpoint.folder)
    assert base is not None  # an adapter names its base, or reading it raises
    named = job.inputs.model
    if named is not None:
        path = job.models.find(named)
        own = job.models.base_of(path) or named
        if job.models.find(own) != job.models.find(base):
            raise ModelError(
                f"lora-gradients: the model is {named}, but the warm-up trained {base}",
                hint="remove 'model' from [embed]: the warm-up decides",
            )
    _check_type(base, job)
    return base


def _check_type(ref: ModelRef, job: Job) -> None:
    """Raise a ``ModelError`` where the model's configuration is known and not Llama-like."""
    config = job.models.config(ref)
    kind = config.get("model_type") if config else None
    if config is not None and kind not in LLAMA_LIKE:
        raise ModelError(
            f"{ref} is of type {kind!r}, of which lora-gradients cannot take gradients",
            hint='it works with what [warmup] use = "llama-lora" trains: '
            f"{', '.join(sorted(LLAMA_LIKE))}",
        )

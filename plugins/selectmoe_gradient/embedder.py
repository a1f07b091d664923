"""The part that turns examples into projected gradients of the warm-up's LoRA weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import normalize

from selectmoe_core import Job, ModelError, ModelRef, Shard, StageError
from selectmoe_core.cost import Shape
from selectmoe_core.models import LLAMA_LIKE, OnItsWay, padded, within_budget
from selectmoe_core.tokens import Encoded
from selectmoe_core.training import KeptCheckpoint
from selectmoe_gradient.checkpoints import LoadedCheckpoint, found_checkpoints, load_checkpoints
from selectmoe_gradient.config import LoraGradientsConfig
from selectmoe_gradient.gradients import ProjectedGradients
from selectmoe_gradient.lora_layers import copy_weights
from selectmoe_gradient.passes import CPU_TOKENS, default_tokens
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
        tokens = self.config.pass_tokens or _tokens(base, job)
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
        return self.begin(shard)()

    def begin(self, shard: Shard) -> Callable[[], np.ndarray]:
        """Send a shard's passes to the device; return a function that waits for the vectors."""
        examples = [self._encoded[int(row)] for row in shard.rows]
        ids = [np.asarray(example.ids) for example in examples]
        masks = [self._encoded.chat.counts(example.parts).copy() for example in examples]
        for mask in masks:
            mask[:1] = False  # the first token is not predicted
        made = [list(self._passes(checkpoint, ids, masks)) for checkpoint in self._checkpoints]
        return partial(self._gathered, len(ids), made)

    def _gathered(self, examples: int, made: list[list[tuple[np.ndarray, OnItsWay]]]) -> np.ndarray:
        """Return the vectors of all checkpoints side by side."""
        width = self._gradients.width
        vectors = np.zeros((examples, width * len(made)), dtype=np.float16)
        for number, passes in enumerate(made):
            block = vectors[:, number * width : (number + 1) * width]
            for rows, found in passes:
                block[rows] = found.numpy()
        return vectors

    def _passes(
        self, checkpoint: LoadedCheckpoint, ids: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, OnItsWay]]:
        """Yield the rows of each pass at a checkpoint, and their vectors ``[rows, dimensions]``."""
        copy_weights(self._gradients.layers, checkpoint.weights)
        counted = np.array([row for row, mask in enumerate(masks) if mask.any()], dtype=np.int64)
        lengths = np.array([len(ids[row]) for row in counted], dtype=np.int64)
        for places in within_budget(lengths, self._tokens):
            batch = padded(counted[places], ids, masks, self._job.device)
            found = normalize(self._gradients.vectors(batch, checkpoint.directions))
            yield batch.rows, OnItsWay((found * checkpoint.root).half())


def _tokens(base: ModelRef, job: Job) -> int:
    """Return how many tokens a pass works on, now that the model is loaded."""
    if job.device == "cpu":
        return CPU_TOKENS
    config = job.models.config(base)
    try:
        shape = Shape.of(config) if config is not None else None
    except KeyError:  # the formulas do not fit this architecture
        shape = None
    free, _ = torch.cuda.mem_get_info(job.device)
    return default_tokens(shape, job.dtype, float(free))


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

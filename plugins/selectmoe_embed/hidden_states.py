"""The embedder ``hidden-states``: a weighted mean of hidden states over an example's tokens."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selectmoe_core import Job, ModelError, ModelRef
from selectmoe_core.cost import ShapeNames
from selectmoe_core.models import Batch, RouterSignals
from selectmoe_core.tokens import Joined, PackedBatch
from selectmoe_embed.config import HiddenStatesConfig
from selectmoe_embed.pooling import packed_mean, packed_weights, padded_mean, padded_weights
from selectmoe_embed.reading import ShardReader, model_of

log = logging.getLogger("selectmoe.embed")


class HiddenStates:
    """Opens a causal language model; see ``HiddenStatesConfig``."""

    def __init__(self, config: HiddenStatesConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Compare the options with the model's configuration, if that exists already."""
        ref = job.inputs.model
        config = job.models.config(ref) if ref is not None else None
        if ref is None or config is None:
            return
        if (count := ShapeNames().find(config, "layers")) is not None:
            _check_layer(self.config.layer, int(count), ref)
        if self.config.pooling == "router":
            _trash_cans(config, ref)

    @contextmanager
    def open(self, job: Job, role: str) -> Iterator[ShardReader]:  # noqa: ARG002
        """Load the model, whichever examples are embedded.

        Raises:
            ModelError: the model lacks the layer, or the trash cans that the pooling needs.
        """
        model, ref, tokenizer = model_of(job, "hidden-states")
        reader = StateReader(model, ref, self.config)
        yield ShardReader(job, tokenizer, reader, self.config.tokens_at_once(job.device))


class StateReader:
    """Reads hidden states of a loaded model and pools them.

    Args:
        model: a causal language model of transformers, or PEFT around one.
        ref: names it in messages.
        config: the options.
    """

    def __init__(self, model: Any, ref: ModelRef, config: HiddenStatesConfig) -> None:  # noqa: ANN401
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._decoder = whole.base_model
        self._pooling = config.pooling
        count = len(self._decoder.layers)
        _check_layer(config.layer, count, ref)
        self._layer = count if config.layer is None else config.layer
        self._signals: RouterSignals | None = None
        if self._pooling == "router":
            self._experts = _trash_cans(whole.config.to_dict(), ref)
            self._signals = RouterSignals(model)
        self._packed = _packed_decoder(self._decoder)
        self._cut(count)
        self.width = int(whole.config.get_text_config().hidden_size)

    @property
    def packs(self) -> bool:
        """Whether the model reads packed batches."""
        return self._packed is not None

    def counted(self, tokens: Joined) -> np.ndarray:
        """Return that every token counts."""
        return np.ones(len(tokens.ids), dtype=bool)

    def read_packed(self, batch: PackedBatch) -> Tensor:
        """Return the vectors of a batch without padding."""
        masses = _TrashMasses(self._experts) if self._pooling == "router" else None
        take = masses.take if masses else None
        shape = batch.positions, batch.starts, batch.longest
        states = self._packed.states(batch.ids, *shape, self._layer, take)
        with torch.inference_mode():
            plain = packed_weights(self._pooling, batch.positions, batch.starts)
            return packed_mean(states, masses.weights if masses else plain, batch.starts)

    @torch.inference_mode()
    def read_padded(self, batch: Batch) -> Tensor:
        """Return the vectors of a padded batch.

        There is no attention mask: with a causal mask no real token attends to the padding.
        """
        masses = _TrashMasses(self._experts) if self._signals else None
        if self._signals and masses:
            with self._signals.listening(range(len(self._signals)), masses.take):
                states = self._states(batch.ids)
            weights = torch.where(batch.mask, masses.weights.view(batch.mask.shape), 0.0)
        else:
            states = self._states(batch.ids)
            weights = padded_weights(self._pooling, batch.mask)
        return padded_mean(states, weights)

    def _states(self, ids: Tensor) -> Tensor:
        """Return the states ``[batch, length, hidden]`` of padded token ids."""
        if self._layer == 0:
            states: Tensor = self._decoder.get_input_embeddings()(ids)
            return states
        found: list[Tensor] = []

        def hear(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
            found.append(output[0] if isinstance(output, tuple) else output)

        with self._decoder.layers[-1].register_forward_hook(hear):
            last: Tensor = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        return last if self._final else found[0]

    def _cut(self, count: int) -> None:
        """Remove the layers that need not run."""
        self._final = self._layer == count
        if self._final or self._packed is not None or self._layer == 0:
            return
        self._decoder.layers = self._decoder.layers[: self._layer]
        if self._signals is not None:
            self._signals.forget_behind(self._layer)


class _TrashMasses:
    """Receives router logits layer by layer; gives each token 1 - its mean trash mass."""

    def __init__(self, experts: int) -> None:
        self._experts = experts
        self._total: Tensor | None = None
        self._layers = 0

    def take(self, _layer: int, logits: Tensor) -> None:
        probs = torch.softmax(logits, dim=-1, dtype=torch.float32)
        mass = probs[:, self._experts :].sum(dim=-1)
        self._total = mass if self._total is None else self._total + mass
        self._layers += 1

    @property
    def weights(self) -> Tensor:
        """The weights, fp32 ``[tokens]``."""
        assert self._total is not None
        return 1 - self._total / self._layers


def _packed_decoder(decoder: Any) -> Any:  # noqa: ANN401
    """Return the model's own way to read packed sequences, or ``None``."""
    offer = getattr(decoder, "packed_decoder", None)
    if offer is None:
        return None
    packed, reason = offer()
    log.info("kernel: %s", reason if packed else f"transformers ({reason})")
    return packed


def _check_layer(layer: int | None, count: int, ref: ModelRef) -> None:
    if layer is not None and layer > count:
        raise ModelError(
            f"layer = {layer}, but {ref} has {count} layers", hint="correct the option 'layer'"
        )


def _trash_cans(config: dict[str, Any], ref: ModelRef) -> int:
    """Return the regular experts of a model with trash cans.

    Raises:
        ModelError: it has none.
    """
    names = ShapeNames()
    if not names.find(config, "trash"):
        raise ModelError(
            f"pooling = 'router', but {ref} has no trash cans",
            hint="use a converted model, or pooling = 'position'",
        )
    return int(names.find(config, "experts"))

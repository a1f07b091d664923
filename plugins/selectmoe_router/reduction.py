"""Keeping little of much: logits come layer by layer, means over tokens stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selectmoe_router.measures import mean_over_tokens, probabilities, statistics


@dataclass(frozen=True)
class Routing:
    """The outputs of a router: ``experts`` regular ones, then ``trash`` cans; ``top_k`` slots."""

    experts: int
    trash: int
    top_k: int

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics that such a router has."""
        of_trash = ("trash_mass", "trash_slots") if self.trash else ()
        return (*of_trash, "topk_ratio", "logit_sum")

    def of_tokens(self, logits: Tensor, probs: Tensor) -> dict[str, Tensor]:
        """Return every statistic, each ``[tokens]``, of logits ``[tokens, experts + trash]``."""
        return statistics(logits, probs, self.experts, self.top_k)


class TokenMeans:
    """Takes a batch's logits layer by layer and keeps the means over its tokens."""

    def __init__(self, mask: Tensor, routing: Routing, *, features: bool) -> None:
        self._mask = mask
        self._routing = routing
        self._features = features
        self.means: list[dict[str, Tensor]] = []
        self.features: list[Tensor] = []

    def take(self, _layer: int, logits: Tensor) -> None:
        """Reduce the logits ``[batch * length, outputs]`` of one layer."""
        probs = probabilities(logits)
        shape = self._mask.shape
        of_tokens = self._routing.of_tokens(logits, probs).items()
        self.means.append(
            {name: mean_over_tokens(one.reshape(shape), self._mask) for name, one in of_tokens}
        )
        if self._features:
            self.features.append(mean_over_tokens(probs.reshape(*shape, -1), self._mask))


class LayerSums:
    """Takes a batch's logits and keeps one number for each token, summed over the layers."""

    def __init__(self, mask: Tensor, routing: Routing) -> None:
        self._routing = routing
        self._name = "trash_mass" if routing.trash else "topk_ratio"
        self.total = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)

    def take(self, _layer: int, logits: Tensor) -> None:
        """Add the numbers of one layer."""
        of_tokens = self._routing.of_tokens(logits, probabilities(logits))
        self.total += of_tokens[self._name].reshape(self.total.shape)


class Means(Protocol):
    """The means of a batch's examples, layer by layer."""

    @property
    def means(self) -> Sequence[Mapping[str, Tensor]]:
        """Every statistic of each layer, ``[batch]``."""
        ...

    @property
    def features(self) -> Sequence[Tensor]:
        """Mean probabilities of each layer, ``[batch, outputs]``, if they were asked for."""
        ...


class ShardTable:
    """Puts the means of batches back in the shard's order; NaN where no batch filled it.

    Attributes:
        columns: ``[examples, layers]`` for every statistic.
        features: fp16 ``[examples, layers * outputs]``, or ``None``.
    """

    def __init__(self, examples: int, layers: int, routing: Routing, *, features: bool) -> None:
        self.columns = {name: np.full((examples, layers), np.nan) for name in routing.statistics}
        width = layers * (routing.experts + routing.trash)
        self.features = np.full((examples, width), np.nan, np.float16) if features else None

    def fill(self, rows: np.ndarray, batch: Means) -> None:
        """Write the results of the examples ``rows``."""
        for name, column in self.columns.items():
            of_layers = torch.stack([means[name] for means in batch.means], dim=1)
            column[rows] = of_layers.cpu().numpy()
        if self.features is not None:
            self.features[rows] = torch.cat(list(batch.features), dim=1).cpu().numpy()

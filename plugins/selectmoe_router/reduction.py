"""Reducing the logits of each layer to means over tokens, so that little memory is used."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selectmoe_router.measures import mean_over_tokens, probabilities
from selectmoe_router.statistics import STATISTICS, available

ABSENT = -1
"""The offset of a statistic that a router does not have."""


@dataclass(frozen=True)
class Routing:
    """The outputs of a router: ``experts`` regular ones, then ``trash`` cans; ``top_k`` slots."""

    experts: int
    trash: int
    top_k: int

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of the statistics that such a router has, in the order of the columns."""
        return tuple(entry.name for entry in available(self.trash))

    def width(self, *, features: bool) -> int:
        """Return how many means a layer has: the statistics and, on request, all outputs' mass."""
        return len(self.statistics) + (self.experts + self.trash if features else 0)

    def offsets(self, *, features: bool) -> dict[str, int]:
        """Return the kernel's names of columns and their places, ``ABSENT`` if there is none.

        The outputs' mass begins at ``FEATURES``, after the statistics.
        """
        places = {name: place for place, name in enumerate(self.statistics)}
        offsets = {entry.offset: places.get(entry.name, ABSENT) for entry in STATISTICS}
        return offsets | {"FEATURES": len(places) if features else ABSENT}

    def columns(self, logits: Tensor, *, features: bool) -> Tensor:
        """Return what is averaged for each token, ``[tokens, width]``: see ``width``."""
        probs = probabilities(logits)
        values = torch.stack(list(self.of_tokens(logits, probs).values()), dim=1)
        return torch.cat([values, probs], dim=1) if features else values

    def of_tokens(self, logits: Tensor, probs: Tensor) -> dict[str, Tensor]:
        """Return every statistic, each ``[tokens]``, of logits ``[tokens, experts + trash]``."""
        return {
            entry.name: entry.plain(logits, probs, self.experts, self.top_k)
            for entry in available(self.trash)
        }


class TokenMeans:
    """Receives a batch's logits layer by layer and keeps the means over its tokens."""

    def __init__(self, mask: Tensor, routing: Routing, *, features: bool) -> None:
        self._mask = mask
        self._routing = routing
        self._features = features
        self._taken: list[Tensor] = []

    def take(self, _layer: int, logits: Tensor) -> None:
        """Reduce the logits ``[batch * length, outputs]`` of one layer."""
        values = self._routing.columns(logits, features=self._features)
        self._taken.append(mean_over_tokens(values.unflatten(0, self._mask.shape), self._mask))

    @property
    def values(self) -> Tensor:
        """The means of each layer, ``[layers, batch, width]``: see ``Routing.width``."""
        return torch.stack(self._taken)


class ShardTable:
    """Puts the means of batches into the shard's order; rows without a batch are NaN.

    Attributes:
        columns: ``[examples, layers]`` for every statistic.
        features: fp16 ``[examples, layers * outputs]``, or ``None``.
    """

    def __init__(self, examples: int, layers: int, routing: Routing, *, features: bool) -> None:
        self.columns = {name: np.full((examples, layers), np.nan) for name in routing.statistics}
        width = layers * (routing.experts + routing.trash)
        self.features = np.full((examples, width), np.nan, np.float16) if features else None

    def fill(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write the means of the examples ``rows``, ``[layers, rows, width]``."""
        for place, column in enumerate(self.columns.values()):
            column[rows] = values[:, :, place].T
        if self.features is not None:
            of_layers = values[:, :, len(self.columns) :].swapaxes(0, 1)
            self.features[rows] = of_layers.reshape(len(rows), -1)

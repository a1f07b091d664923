"""The routing of single tokens, for the shading in the report."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selectmoe_core.models import RouterSignals, padded, within_budget
from selectmoe_router.measures import probabilities
from selectmoe_router.reduction import Routing


class TokenValues:
    """Receives the logits layer by layer and keeps one statistic's mean over the layers."""

    def __init__(self, routing: Routing, statistic: str) -> None:
        self._routing = routing
        self._statistic = statistic
        self._sum: Tensor | None = None
        self._layers = 0

    def take(self, _layer: int, logits: Tensor) -> None:
        """Add the statistic of one layer's logits ``[batch * length, outputs]``."""
        found = self._routing.of_tokens(logits, probabilities(logits))[self._statistic].double()
        self._sum = found if self._sum is None else self._sum + found
        self._layers += 1

    @property
    def values(self) -> Tensor:
        """The mean over the layers, fp64 ``[batch * length]``."""
        assert self._sum is not None
        return self._sum / self._layers


@torch.inference_mode()
def values_of_tokens(
    signals: RouterSignals,
    layers: Sequence[int],
    ids: Sequence[np.ndarray],
    reading: tuple[Routing, str],
    device: str,
    batch_tokens: int,
) -> list[np.ndarray]:
    """Return a statistic of every token, a mean over ``layers``: float64 ``[length]`` each."""
    found = [np.empty(0)] * len(ids)
    masks = [np.ones(len(own), dtype=bool) for own in ids]
    rows = np.flatnonzero([len(own) for own in ids])
    for places in within_budget(np.array([len(ids[row]) for row in rows.tolist()]), batch_tokens):
        batch = padded(rows[places], ids, masks, device)
        tokens = TokenValues(*reading)
        signals.read(batch.ids, layers, tokens.take)
        values = tokens.values.unflatten(0, batch.ids.shape).cpu().numpy()
        for row, own in zip(batch.rows.tolist(), values, strict=True):
            found[row] = own[: len(ids[row])]
    return found

"""How a warm-up changed the load of experts, from the facts of its stage."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from selectmoe_core.report.findings import ExpertLoad, HeatMap, LayerLoad
from selectmoe_core.store import Facts

FACT = "expert_load"
IDLE = 0.1
"""An expert with less than this share of an even share is called idle."""


def expert_load(facts: Facts) -> ExpertLoad | None:
    """Return the load before and after, or ``None`` where it was not measured."""
    found: Mapping[str, Any] = facts.get(FACT) or {}
    if not found:
        return None
    before, after = (np.asarray(found[when], dtype=np.float64) for when in ("before", "after"))
    experts = int(found["experts"])
    return ExpertLoad(
        examples=int(found["examples"]),
        tokens=int(found["tokens"]),
        experts=experts,
        before=_heat(before, experts),
        after=_heat(after, experts),
        layers=tuple(_layers(before, after, experts)),
    )


def _heat(shares: np.ndarray, experts: int) -> HeatMap:
    """Return shares ``[layers, outputs]`` as a heat map; trash cans are named T0, T1, ..."""
    trash = range(shares.shape[1] - experts)
    return HeatMap(
        title="share of slots",
        each="output",
        share=True,
        sources=tuple(f"layer {layer}" for layer in range(len(shares))),
        columns=(*map(str, range(experts)), *(f"T{number}" for number in trash)),
        values=shares,
    )


def _layers(before: np.ndarray, after: np.ndarray, experts: int) -> list[LayerLoad]:
    figures = [_figures(shares, experts) for shares in (before, after)]
    return [
        LayerLoad(layer, *zip(first, second, strict=True))
        for layer, (first, second) in enumerate(zip(*figures, strict=True))
    ]


def _figures(shares: np.ndarray, experts: int) -> list[tuple[float, float, int]]:
    """Return of each layer the trash share, the busiest expert's share, and how many are idle."""
    regular = shares[:, :experts]
    used = regular.sum(axis=1, keepdims=True)
    even = regular / np.where(used, used, 1.0)
    return [
        (float(1 - own.sum()), float(part.max()), int((part < IDLE / experts).sum()))
        for own, part in zip(regular, even, strict=True)
    ]

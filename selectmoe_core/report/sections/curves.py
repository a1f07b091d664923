"""Training curves, read from the log of each training."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from selectmoe_core.report.sections.load import expert_load
from selectmoe_core.report.summary import Curve, TrainingSummary
from selectmoe_core.store import Artifact

LOG = "train_log.jsonl"
WEIGHTS = {
    "bce": "bce_weight",
    "margin": "margin_weight",
    "cross_entropy": "lm_weight",
    "constraint": "constraint_loss_weight",
    "balance": "router_aux_loss_coef",
}
"""Losses that a warm-up logs, and the option that is the weight of each."""
POINTS = 400
"""The most points of a curve; in a longer log each point is the mean of neighbouring entries."""


def summarise_training(key: str, artifact: Artifact, arms: Sequence[str]) -> TrainingSummary | None:
    """Return the curves of a training, or ``None`` if it has no log."""
    path = artifact.folder / LOG
    if not path.is_file():
        return None
    steps: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    for step, name, value in _entries(path):
        # A resumed training writes the steps after its checkpoint again; the later entries count.
        own = steps.setdefault(name, [])
        while own and own[-1] >= step:
            own.pop()
            values[name].pop()
        own.append(step)
        values.setdefault(name, []).append(value)
    if not steps:
        return None
    loss = values.get("loss")
    options = artifact.details.get("options") or {}
    curves = {name: Curve(*_thin(steps[name], values[name])) for name in steps}
    return TrainingSummary(
        key=key,
        stage=artifact.stage,
        component=artifact.component,
        arms=tuple(arms),
        steps=int(max(own[-1] for own in steps.values())),
        first_loss=loss[0] if loss else None,
        last_loss=loss[-1] if loss else None,
        curves=curves,
        unweighted=tuple(name for name in steps if options.get(WEIGHTS.get(name)) == 0),
        load=expert_load(artifact.facts),
    )


def _entries(path: Path) -> Iterator[tuple[float, str, float]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line may be incomplete if the training was killed
            step = entry.pop("step", None)
            if step is None:
                continue
            for name, value in entry.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    yield float(step), name, float(value)


def _thin(steps: list[float], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(steps) <= POINTS:
        return np.asarray(steps), np.asarray(values)
    bins = np.array_split(np.arange(len(steps)), POINTS)
    x, y = np.asarray(steps), np.asarray(values)
    return np.array([x[b].mean() for b in bins]), np.array([y[b].mean() for b in bins])

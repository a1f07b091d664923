"""What each arm cost: device-seconds as measured, FLOPs as estimated, part by part."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core.compare.planning import Comparison, PlannedArm, PlannedTrial
from selectmoe_core.cost import DEVICES
from selectmoe_core.plan.estimates import estimate
from selectmoe_core.plan.node import Plan
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import Artifact

PARTS: Mapping[str, tuple[str, ...]] = {
    "warm-up": ("convert", "warmup"),
    "embedding": ("embed",),
    "scoring": ("score",),
    "selection": ("filter", "select"),
    "training": ("train",),
}
"""What is counted, and the stages that it is made of; the pool and the evaluation are not."""


@dataclass(frozen=True)
class ArmCost:
    """What one arm costs by itself, the mean over its seeds; what arms share counts in each.

    Attributes:
        seconds: device-seconds by part: seconds times processes.
        flops: estimated by part; ``None`` where a component does not say.
        kept: examples it trains on; ``None`` for the base model.
        tokens: tokens in them, where the trainer counts them.
        gone: nodes whose artifacts are no longer there: their seconds are not counted.
    """

    seconds: Mapping[str, float]
    flops: Mapping[str, float | None]
    kept: float | None
    tokens: float | None
    gone: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Device-seconds in all."""
        return sum(self.seconds.values())

    @property
    def choosing(self) -> float:
        """Device-seconds before the training."""
        return self.total - self.seconds["training"]

    @property
    def total_flops(self) -> float | None:
        """FLOPs in all, of the parts whose FLOPs are known; ``None`` where none is."""
        known = [value for value in self.flops.values() if value is not None]
        return sum(known) if known else None


def costs_of(comparison: Comparison, registry: Registry) -> dict[str, ArmCost]:
    """Return what each arm cost, by its label, once all nodes are finished."""
    plan = comparison.plan
    device = DEVICES["cpu"]  # FLOPs do not depend on it
    flops = {row["key"]: row["cost"]["flops"] for row in estimate(plan, registry, device)}
    return {arm.label: _cost(arm, plan, flops) for arm in comparison.arms}


def _cost(arm: PlannedArm, plan: Plan, flops: Mapping[str, float | None]) -> ArmCost:
    trials = [_of_trial(trial, plan, flops) for trial in arm.trials]
    return ArmCost(
        {part: float(np.mean([trial.seconds[part] for trial in trials])) for part in PARTS},
        {part: _mean([trial.flops[part] for trial in trials]) for part in PARTS},
        _mean([trial.kept for trial in trials]),
        _mean([trial.tokens for trial in trials]),
        tuple(dict.fromkeys(key for trial in trials for key in trial.gone)),
    )


def _of_trial(trial: PlannedTrial, plan: Plan, flops: Mapping[str, float | None]) -> ArmCost:
    keys = list(dict.fromkeys(trial.keys.values()))
    found = {key: finished(plan, key) for key in keys}
    parts = {
        part: [key for key in keys if plan.nodes[key].stage in stages]
        for part, stages in PARTS.items()
    }
    facts = {one.stage: one.facts for one in found.values() if one is not None}
    return ArmCost(
        {part: sum(_seconds(found[key]) for key in own) for part, own in parts.items()},
        {part: _sum(flops.get(key) for key in own) for part, own in parts.items()},
        facts.get("select", {}).get("kept"),
        facts.get("train", {}).get("tokens"),
        tuple(key for own in parts.values() for key in own if found[key] is None),
    )


def finished(plan: Plan, key: str) -> Artifact | None:
    """Return the artifact of a node; one that nothing wanted needed may be gone."""
    node = plan.nodes[key]
    return plan.store.find(node.stage, node.digest or "")


def more_random_data(cost: ArmCost, random: ArmCost) -> float | None:
    """Return how many more random examples the seconds of choosing would have trained on.

    ``None`` where a random arm's training took no measurable time.
    """
    extra = cost.choosing - random.choosing
    if not random.kept or random.seconds["training"] <= 0:
        return None
    return max(0.0, extra) * random.kept / random.seconds["training"]


def _seconds(artifact: Artifact | None) -> float:
    return artifact.seconds * float(artifact.details.get("processes", 1)) if artifact else 0.0


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

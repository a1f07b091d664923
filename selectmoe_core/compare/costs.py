"""What each arm cost: device-seconds as measured, FLOPs as estimated, part by part."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core.compare.planning import Comparison, PlannedArm
from selectmoe_core.cost import DEVICES
from selectmoe_core.plan.estimates import estimate
from selectmoe_core.plan.node import Plan
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import Artifact

PARTS: Mapping[str, tuple[str, ...]] = {
    "warm-up": ("convert", "warmup"),
    "scoring": ("score",),
    "selection": ("select",),
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
    """

    seconds: Mapping[str, float]
    flops: Mapping[str, float | None]
    kept: float | None
    tokens: float | None

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
    of_seed: list[dict[str, float]] = []
    flops_of: list[dict[str, float | None]] = []
    kept, tokens = [], []
    for trial in arm.trials:
        keys = list(dict.fromkeys(trial.keys.values()))
        artifacts = {key: finished(plan, key) for key in keys}
        by_part = {
            part: [k for k in keys if plan.nodes[k].stage in of] for part, of in PARTS.items()
        }
        of_seed.append(
            {part: sum(map(_seconds, (artifacts[k] for k in own))) for part, own in by_part.items()}
        )
        flops_of.append({part: _sum(flops.get(k) for k in own) for part, own in by_part.items()})
        kept += [a.facts["kept"] for a in artifacts.values() if a and a.stage == "select"]
        tokens += [
            a.facts["tokens"]
            for a in artifacts.values()
            if a and a.stage == "train" and a.facts.get("tokens")
        ]
    return ArmCost(
        {part: float(np.mean([one[part] for one in of_seed])) for part in PARTS},
        {part: _mean([one[part] for one in flops_of]) for part in PARTS},
        _mean(kept),
        _mean(tokens),
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

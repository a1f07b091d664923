"""The cost of a plan's nodes: the components' own formulas, applied to what is known."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.cost import (
    CHARACTERS_PER_TOKEN,
    Cost,
    Device,
    Workload,
    seconds,
)
from selectmoe_core.errors import ModelError
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runtime.hardware import Machine
from selectmoe_core.store import Artifact

UNKNOWN = "?"
ROWS_A_SECOND: Mapping[str, float] = {"pool": 1e4, "targets": 1e4, "score": 1e5, "select": 1e5}
"""Rows of stages without torch whose component gives no formula: low, since they take no time
beside the others."""
COPIED_BYTES = 3e8
"""Bytes a second that a conversion reads and writes."""
WITHOUT_ROWS = ("pool", "targets", "pairs", "questions", "convert", "evaluate")
"""Stages whose cost does not depend on the rows of the pool."""


@dataclass(frozen=True)
class Amount:
    """Numbers of examples and tokens, and whether they are estimates."""

    examples: float | None = None
    tokens: float | None = None
    estimated: bool = True

    def plus(self, other: "Amount") -> "Amount":
        """Return both amounts together; unknown if one of them is."""
        if self.examples is None or other.examples is None:
            return Amount()
        if self.tokens is None or other.tokens is None:
            return Amount(self.examples + other.examples)
        return Amount(self.examples + other.examples, self.tokens + other.tokens)

    def share(self, examples: float | None) -> "Amount":
        """Return the amount for ``examples`` of these examples."""
        if examples is None or not self.examples or self.tokens is None:
            return Amount(examples)
        return Amount(examples, self.tokens * examples / self.examples)


def estimate(plan: Plan, registry: Registry, device: Device) -> list[dict[str, Any]]:
    """Return one row per node: what it is, whether it is done, and what it will cost.

    Each row's ``shown`` holds the figures as text: ``~`` before an estimate, ``?`` for an unknown.
    """
    cores = Machine.here().cores
    return [_row(plan, registry, node, device, cores) for node in plan.nodes.values()]


def _row(plan: Plan, registry: Registry, node: Node, device: Device, cores: int) -> dict[str, Any]:
    amount = _amount(plan, node)
    cost, problem = _cost(plan, registry, node, amount, device)
    done = plan.cached(node)
    time = seconds(cost, device, cores)
    if time is None:
        time = _seconds_of_rows(plan, node, amount, cost)
    figures = {
        "tokens": cost.tokens,
        "flops": cost.flops,
        "seconds": time,
        "memory": cost.memory,
        "disk": cost.disk,
    }
    return {
        "key": node.key,
        "component": node.entry.component.name,
        "digest": node.digest,
        "state": "cached" if done else ("to do" if node.digest else "after hashing"),
        "model": str(node.model) if node.model else None,
        "reads": {**node.inputs, **({"model": str(node.model)} if node.model else {})},
        "arms": list(node.arms),
        "estimated": amount.estimated,
        "cost_problem": problem,
        "cost": figures,
        "shown": {name: shown(name, value) for name, value in figures.items()},
    }


def _seconds_of_rows(plan: Plan, node: Node, amount: Amount, cost: Cost) -> float | None:
    """Return the time of a stage whose component gives no formula, from its rows or its bytes."""
    if node.stage == "convert" and cost.disk is not None:
        return cost.disk / COPIED_BYTES
    if node.uses_torch or node.stage not in ROWS_A_SECOND:
        return None
    rows = amount.examples
    if node.stage in ("pool", "targets"):
        rows = _pool(plan, node).examples
    elif "pool" in node.inputs:
        rows = _pool(plan, plan.nodes[node.inputs["pool"]]).examples
    return None if rows is None else rows / ROWS_A_SECOND[node.stage]


def models_without_config(plan: Plan, registry: Registry) -> list[str]:
    """Return the hub models whose sizes are unknown because their config.json is not here."""
    found: dict[str, None] = {}
    for node in plan.nodes.values():
        if node.model is None or plan.cached(node) or node.stage == "evaluate":
            continue
        with suppress(ModelError):
            if registry.models.local(node.model) is None:
                found[node.model.location] = None
    return list(found)


def _ask(node: Node, workload: Workload) -> tuple[Cost, str]:
    """Return what a component's formula says, and what went wrong in it."""
    formula = node.entry.component.cost
    if formula is None:
        return Cost(), ""
    try:
        cost = formula(node.config, workload)
        if not isinstance(cost, Cost):
            raise TypeError(f"it returned {cost!r}, not a Cost")  # noqa: TRY301
    except Exception as error:
        # A plugin's formula, which may not know the configuration of this model.
        what = f"{type(error).__name__}: {error}"
        name = f"the cost formula of {node.entry.component.name} (plugin {node.entry.plugin})"
        return Cost(), f"{name} failed: {what[:200]}"
    return cost, ""


def _cost(
    plan: Plan, registry: Registry, node: Node, amount: Amount, device: Device
) -> tuple[Cost, str]:
    workload = Workload(
        examples=amount.examples or 0.0,
        tokens=amount.tokens or 0.0,
        estimated=amount.estimated,
        model=_model_config(plan, registry, node),
        dtype="float32" if device.name == "cpu" else "bfloat16",
    )
    known = amount.tokens is not None or node.stage in WITHOUT_ROWS
    return _ask(node, workload) if known else (Cost(), "")


def _model_config(plan: Plan, registry: Registry, node: Node) -> Mapping[str, Any] | None:
    """Return the configuration of a node's model, following the nodes that it comes from."""
    while node.model is None and "model" in node.inputs:
        node = plan.nodes[node.inputs["model"]]
    if node.model is None:
        return None
    try:
        return registry.models.config(node.model)
    except ModelError:
        return None


def _amount(plan: Plan, node: Node) -> Amount:
    """Return the amount that a node works on: exact if the pool is built, otherwise estimated."""
    if "select" in node.inputs:
        return _sampled(_selected(plan, plan.nodes[node.inputs["select"]]), node)
    pool = plan.nodes.get(node.rows_of)
    if pool is None or node.stage in WITHOUT_ROWS:
        return Amount()
    sample = _sampled(_pool(plan, pool), node)
    return _with_pairs(plan, sample, node) if "pairs" in node.inputs else sample


def _with_pairs(plan: Plan, sample: Amount, node: Node) -> Amount:
    """Return what an epoch of a warm-up reads: examples of the pool, and preference pairs."""
    source = plan.nodes[node.inputs["pairs"]]
    pairs, share = _pairs(plan, source), getattr(source.own, "share", None)
    if share == 1:
        return pairs
    if sample.examples is not None and share is not None:
        pairs = pairs.share(sample.examples * share / (1 - share))
    return sample.plus(pairs)


def _pairs(plan: Plan, node: Node) -> Amount:
    """Return the preference pairs: exact if they have been read, otherwise estimated.

    The tokens are those of the chosen answers with their prompts.
    """
    artifact = plan.store.find(node.stage, node.digest) if node.digest else None
    if artifact is not None:
        facts = artifact.facts
        return Amount(float(facts["pairs"]), facts["characters"] / 2 / CHARACTERS_PER_TOKEN)
    component = node.entry.component
    if component.files is None:
        return Amount()
    size = sum(_bytes(path) for path in component.files(node.config)) / 2
    return Amount(size / 800, size / CHARACTERS_PER_TOKEN)


def _sampled(amount: Amount, node: Node) -> Amount:
    ratio = node.own.subset_ratio
    if ratio is None or amount.examples is None:
        return amount
    return amount.share(max(1.0, round(ratio * amount.examples)))


def _pool(plan: Plan, node: Node) -> Amount:
    artifact = plan.store.find(node.stage, node.digest) if node.digest else None
    if artifact is not None:
        sources = artifact.facts["sources"].values()
        characters = sum(
            source["prompt_characters"] + source["response_characters"] for source in sources
        )
        return Amount(float(artifact.facts["examples"]), characters / CHARACTERS_PER_TOKEN)
    component = node.entry.component
    if component.cost is not None:
        cost, _ = _ask(node, Workload(0, 0, estimated=True, model=None, dtype=""))
        return _sampled(Amount(cost.examples, cost.tokens), node)
    if component.files is not None:
        size = sum(_bytes(path) for path in component.files(node.config))
        return _sampled(Amount(size / 800, size / CHARACTERS_PER_TOKEN), node)
    return Amount()


def _bytes(path: Path) -> float:
    """Return bytes of text in a file or folder; compressed text is assumed to shrink to a third."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(
        file.stat().st_size * (3 if file.suffix in (".gz", ".zst", ".parquet") else 1)
        for file in files
    )


def _selected(plan: Plan, select: Node) -> Amount:
    artifact: Artifact | None = (
        plan.store.find(select.stage, select.digest) if select.digest else None
    )
    pool = plan.nodes.get("pool")
    amount = _pool(plan, pool) if pool else Amount()
    if artifact is not None:
        return amount.share(float(artifact.facts["kept"]))
    component = select.entry.component
    if component.cost is None or amount.examples is None:
        return Amount()
    workload = Workload(amount.examples, amount.tokens or 0, estimated=True, model=None, dtype="")
    return amount.share(_ask(select, workload)[0].examples)


def shown(name: str, value: float | None) -> str:
    """Return a figure as text: ``~`` before an estimate, ``?`` for an unknown."""
    if value is None:
        return UNKNOWN
    if name == "seconds":
        return f"~{_duration(value)}"
    if name in ("memory", "disk"):
        return f"~{_scaled(value, 1024, ('B', 'KiB', 'MiB', 'GiB', 'TiB'))}"
    return f"~{_scaled(value, 1000, ('', 'k', 'M', 'G', 'T', 'P', 'E'))}"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < base:
            return f"{value:.3g} {unit}".strip()
        value /= base
    return f"{value:.3g} {units[-1]}"


def _duration(value: float) -> str:
    if value < 100:
        return f"{value:.2g} s"
    if value < 6000:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 200 * 3600 else f"{value / 86400:.0f} d"

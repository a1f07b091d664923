"""The result of a finished stage, in one line for the terminal."""

from typing import Any

from selectmoe_core.stages import embedding, filtering, pairs, pool, select
from selectmoe_core.store import Artifact

REASONS = 5
"""The most reasons for skipped rows that are shown."""


def summary(artifact: Artifact) -> str:
    """Return a stage's main figures, to be printed after its name and time."""
    facts = artifact.facts
    if artifact.stage in ("pool", "targets"):
        return f": {pool.summary(facts)}"
    if artifact.stage == "embed":
        return f": {embedding.summary(facts)}"
    if artifact.stage == "pairs":
        return f": {pairs.summary(facts)}"
    if artifact.stage == "filter":
        return f": {filtering.summary(facts)}"
    if artifact.stage == "select":
        return f": {select.summary(facts)}"
    shown = {
        "questions": ("questions",),
        "score": ("scored",),
        "train": ("steps", "loss"),
        "warmup": ("steps", "loss"),
    }.get(artifact.stage, ())
    parts = [f"{name} {_number(facts[name])}" for name in shown if name in facts]
    if artifact.stage == "score" and facts["scored"] < facts["examples"]:
        parts.append(f"skipped {facts['examples'] - facts['scored']:,}")
    if artifact.stage == "evaluate":
        tasks = facts.get("tasks", {})
        parts = [f"{task} {entry['value']:.3f}" for task, entry in tasks.items()][:4]
    lost = [f"\n  skipped: {count:,} x {why}" for why, count in _skipped(artifact)]
    return f": {', '.join(parts)}{''.join(lost)}" if parts else ""


def _skipped(artifact: Artifact) -> list[tuple[str, int]]:
    """Return why a score has no number for some rows, the commonest reasons first."""
    reasons = artifact.facts.get("skipped", {}) if artifact.stage == "score" else {}
    return sorted(reasons.items(), key=lambda item: -item[1])[:REASONS]


def _number(value: Any) -> str:  # noqa: ANN401
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

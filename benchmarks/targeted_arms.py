"""The strategies of the benchmark of targeted selection, the most important first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selectmoe_core.plugin.registry import Registry

Tables = Mapping[str, Mapping[str, Any]]
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def strategies(model: str, targets: Path, tasks: Sequence[str]) -> dict[str, Tables]:
    """Return what each strategy changes in the recipe.

    Args:
        model: the model that is trained, which gives vectors and losses too.
        targets: the folder with a file of each target task.
        tasks: the target tasks.
    """
    files = [str((targets / f"{task}.jsonl").resolve()) for task in tasks]
    aimed = {"targets": {"use": "jsonl", "path": files}}
    hidden = {"use": "hidden-states", "model": model}
    turns = {"use": "similarity", "per_task": "ranks"}
    router = {"use": "router", "statistic": "trash_mass"}
    blend = {"use": "blend", "scores": ["rds", "contrastive"]}
    sound = {"use": "blend", "scores": ["rds"], "filter_first": {"contrastive": 0.5}}
    few = {"use": "llama-lora", "model": model, "subset_ratio": 0.05, "epochs": 4}
    return {
        "rds": {**aimed, "embed": hidden, "score": turns},
        "contrastive": {},
        "less": {
            **aimed,
            "warmup": {**few, **WARMUP},
            "embed": {"use": "lora-gradients"},
            "score": {"use": "similarity", "per_task": "mean"},
        },
        "ifd": {"score": {"use": "ifd", "model": model}},
        "bm25": {**aimed, "score": {"use": "bm25"}},
        "rds-and-contrastive": {
            **aimed,
            "embed": hidden,
            "score": {"rds": turns, "contrastive": router, "both": blend},
            "select": {"score": "both"},
        },
        "rds-of-contrastive": {  # the contrastive score filters first
            **aimed,
            "embed": hidden,
            "score": {"rds": turns, "contrastive": router, "both": sound},
            "select": {"score": "both"},
        },
        "router-profile": {**aimed, "embed": {"use": "router-profile"}, "score": turns},
        "rds-router": {
            **aimed,
            "embed": {"use": "hidden-states", "pooling": "router"},
            "score": turns,
        },
    }


WARMUP = {
    "checkpoint_every": "epoch",
    "learning_rate": 2e-4,
    "lora_rank": 16,
    "lora_alpha": 32,
    "batch_size": 32,
}
"""LESS's warm-up on a sample of the pool, with the options of the training."""


def possible(wanted: Mapping[str, Tables], registry: Registry) -> dict[str, Tables]:
    """Return the strategies whose components the installed plugins offer."""
    known = {entry.component.name for entry in registry}
    return {name: tables for name, tables in wanted.items() if known.issuperset(_used(tables))}


def _used(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the components that a table and those inside it use."""
    if "use" in table:
        yield table["use"]
    for inner in table.values():
        if isinstance(inner, Mapping):
            yield from _used(inner)


def recipe(
    arms: Mapping[str, Tables], baselines: Iterable[str], seeds: Sequence[int], tables: Tables
) -> dict[str, Any]:
    """Return the recipe of a comparison of some strategies: that of smollm2 with some changes."""
    compare = {"baselines": list(baselines), "seeds": list(seeds), "strategies": dict(arms)}
    extends = str(RECIPES / "smollm2.toml")
    return {"format": 1, "name": "targeted", "extends": extends, **tables, "compare": compare}

"""The strategies of the benchmark of targeted selection, the most important first."""

from collections.abc import Iterable, Mapping, Sequence
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
    hidden = {"use": "hidden-states", "model": model, "pooling": "position"}
    similar = {"use": "similarity"}
    turns = {"use": "round-robin", "fraction": 0.05}
    ifd = {"use": "ifd", "model": model}
    return {
        "rds": {**aimed, "embed": hidden, "score": similar, "select": turns},
        "contrastive": {},
        "less": {
            **aimed,
            "warmup": {"use": "llama-lora", "model": model, "subset_ratio": 0.05, "epochs": 4},
            "embed": {"use": "lora-gradients"},
            "score": similar,
            "select": turns,
        },
        "ifd": {"score": ifd},
        "bm25": {**aimed, "embed": {"use": "bm25"}, "score": similar, "select": turns},
        "router-profile": {
            **aimed, "embed": {"use": "router-profile"}, "score": similar, "select": turns,
        },
        "rds-router": {
            **aimed,
            "embed": {"use": "hidden-states", "pooling": "router"},
            "score": similar,
            "select": turns,
        },
    }  # fmt: skip


def possible(wanted: Mapping[str, Tables], registry: Registry) -> dict[str, Tables]:
    """Return the strategies whose components the installed plugins offer."""
    known = {entry.component.name for entry in registry}
    return {
        name: tables
        for name, tables in wanted.items()
        if all(table.get("use", "jsonl") in known for table in tables.values())
    }


def recipe(
    arms: Mapping[str, Tables], baselines: Iterable[str], seeds: Sequence[int], tables: Tables
) -> dict[str, Any]:
    """Return the recipe of a comparison of some strategies: that of smollm2 with some changes."""
    compare = {"baselines": list(baselines), "seeds": list(seeds), "strategies": dict(arms)}
    extends = str(RECIPES / "smollm2.toml")
    return {"format": 1, "name": "targeted", "extends": extends, **tables, "compare": compare}

"""What each strategy picks and costs, on one pool: the tables of docs/strategies.md.

    python benchmarks/strategies.py --data DATA --model SMOLLM2 --out work/strategies
    python benchmarks/strategies.py --data DATA --out work/tiny --tiny       # on a CPU, in minutes
    python benchmarks/strategies.py --data DATA --rows 2000 --arms random length bm25

``DATA`` holds ``less/train/processed`` (the pool) and ``eval`` (the questions). Each strategy is a
recipe that ends with its selection; all use one store, so that what two of them share is made once
and costs both. Nothing is trained on a selection: ``targeted.py`` does that, and these are its
strategies with some more. It writes ``strategies.md`` and ``strategies.json``; the same command
goes on where it was stopped, and ``--minutes`` leaves out what is not begun by then.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from strategies_table import markdown, picked
from targeted_arms import RECIPES, Tables, possible, strategies
from targeted_data import TASKS, hold_back, target_options

from selectmoe_core.cost import DEVICES
from selectmoe_core.plan.estimates import estimate
from selectmoe_core.plan.node import Plan
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import read_recipe
from selectmoe_core.store import Artifact

SHARED = ("pool", "targets", "questions", "filter", "select")
"""Stages that are no cost of choosing by one strategy rather than another."""
POOL_ROWS = 19_203
"""Rows of the whole pool, of which ``--rows`` draws some."""


def main(arguments: list[str] | None = None) -> int:
    """Select by each strategy, and write the tables."""
    chosen = parse(arguments)
    registry = Registry(load_plugins())
    chosen.out.mkdir(parents=True, exist_ok=True)
    data = chosen.out / "data"
    hold_back(chosen.data, data, chosen.targets, chosen.held_back, 0)
    os.environ["SELECTMOE_DATA"] = str(data.resolve())  # the tasks find their questions by it
    arms = possible(all_strategies(chosen, data / "targets"), registry)
    arms = {name: tables for name, tables in arms.items() if name in (chosen.arms or arms)}
    end = time.monotonic() + 60 * chosen.minutes if chosen.minutes else None
    found: dict[str, dict[str, Any]] = {}
    left: list[str] = []
    for name, tables in arms.items():
        path = write_recipe(chosen, name, tables)
        plan = make_plan(read_recipe(path, (), RECIPES), registry, outputs(chosen), until="select")
        flops = flops_of(plan, registry)
        late = end is not None and time.monotonic() > end and not plan.cached(plan.nodes["select"])
        if late or not select(chosen, path):
            left.append(name)
            continue
        plan = make_plan(read_recipe(path, (), RECIPES), registry, outputs(chosen), until="select")
        found[name] = {"flops": flops, "seconds": seconds_of(plan)} | picked(plan)
        write(chosen, found, left)
    write(chosen, found, left)
    return 0 if found else 1


def all_strategies(chosen: argparse.Namespace, targets: Path) -> dict[str, Tables]:
    """Return what each strategy changes, the cheap ones first."""
    model = chosen.model
    aimed = strategies(model, targets, chosen.targets)
    losses = {"model": model}
    plain = {
        "random": {"score": {"use": "random"}},
        "length": {"score": {"use": "length"}},
        "bm25": aimed.pop("bm25"),
        "perplexity": {"score": {"use": "perplexity", **losses}},
        "ifd": aimed.pop("ifd"),
        "token-ifd": {"score": {"use": "token-ifd", **losses}},
        "rds": aimed.pop("rds"),
        "dynamics": {"warmup": aimed["less"]["warmup"], "score": {"use": "dynamics"}},
    }
    last = {"less": aimed.pop("less")}
    if chosen.judge:
        judged = {"use": "judge", "model": chosen.judge, "template_file": str(chosen.template)}
        last["judge"] = {"score": judged}
    return {**plain, **aimed, **last}


def write_recipe(chosen: argparse.Namespace, name: str, tables: Tables) -> Path:
    """Write the recipe of a strategy: smollm2 with its tables, the pool and the questions."""
    pool: dict[str, Any] = {
        "path": str((chosen.data / "less/train/processed").resolve()),
        "sources": ["cot", "dolly", "flan_v2", "oasst1", "gpteacher", "self_instruct"],
    }
    if chosen.rows < POOL_ROWS:
        pool["subset_ratio"] = chosen.rows / POOL_ROWS
    table: dict[str, Any] = {
        "format": 1,
        "name": name,
        "extends": str(RECIPES / "smollm2.toml"),
        "pool": pool,
        "filter": {"language": {"use": "language"}},
        "select": {"use": "top-fraction", "fraction": chosen.fraction, "per": "none"},
        "train": {"model": chosen.model},
        "evaluate": {
            "tasks": [f"{task}_local" for task in TASKS],
            "include_path": [str(RECIPES / "tasks/local_eval")],
            "allow_task_code": True,
            "task_data": [str((chosen.out / "data/eval").resolve())],
        },
    }
    for stage, options in tables.items():
        table[stage] = {**table.get(stage, {}), **options}
    path = chosen.out / f"{name}.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return Path(path)


def outputs(chosen: argparse.Namespace) -> Path:
    """Return the folder that all strategies share."""
    return Path(chosen.out / "outputs").resolve()


def select(chosen: argparse.Namespace, path: Path) -> bool:
    """Select by a recipe; return whether it worked."""
    command = [sys.executable, "-m", "selectmoe_core", "run", str(path), "--until", "select"]
    command += ["~compare", "--outputs", str(outputs(chosen)), "--device", chosen.device]
    start = time.monotonic()
    done = subprocess.run(command, check=False)
    print(f"{path.stem}: {time.monotonic() - start:.0f} s, code {done.returncode}", flush=True)
    return done.returncode == 0


def flops_of(plan: Plan, registry: Registry) -> float | None:
    """Return the estimated FLOPs of choosing; ``None`` if a stage's are unknown."""
    rows = estimate(plan, registry, DEVICES["cpu"])
    costs = [
        row["cost"]["flops"]
        for row in rows
        if (node := plan.nodes[row["key"]]).stage not in SHARED and node.uses_torch
    ]
    return None if None in costs else float(sum(costs))


def seconds_of(plan: Plan) -> dict[str, float]:
    """Return the seconds of each stage of choosing, as when it was made."""
    spent: dict[str, float] = {}
    for node in plan.nodes.values():
        artifact = Artifact.load(plan.folder(node))
        if artifact is not None and node.stage not in SHARED:
            spent[node.stage] = spent.get(node.stage, 0.0) + artifact.seconds
    return spent


def write(
    chosen: argparse.Namespace, found: Mapping[str, Mapping[str, Any]], left: list[str]
) -> None:
    """Write what is there."""
    if not found:
        return
    kept = {name: {**one, "rows": sorted(one["rows"])} for name, one in found.items()}
    text = json.dumps({"arms": kept, "not_run": left}, indent=1)
    (chosen.out / "strategies.json").write_text(text, encoding="utf-8")
    table = markdown(found, left)
    (chosen.out / "strategies.md").write_text(table, encoding="utf-8")
    print(table, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    target_options(parser, Path("work/strategies"))
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--held-back", type=int, default=100, help="target examples of a task")
    parser.add_argument("--rows", type=int, default=POOL_ROWS, help="of the pool, drawn at random")
    parser.add_argument("--fraction", type=float, default=0.05, help="of the pool that is kept")
    parser.add_argument("--judge", help="a scorer model for the strategy judge")
    parser.add_argument("--template", type=Path, help="the file with the judge's prompt")
    parser.add_argument("--minutes", type=float, default=0, help="begin nothing more after")
    parser.add_argument("--tiny", action="store_true", help="a trial: 300 rows, a nano model")
    chosen = parser.parse_args(arguments)
    if chosen.judge and not chosen.template:
        parser.error("--judge needs --template FILE")
    if chosen.tiny:
        chosen.model, chosen.rows, chosen.held_back = "bundled:nano-llama", 300, 10
        chosen.fraction = 0.1
    if Path(chosen.model).exists():
        chosen.model = str(Path(chosen.model).resolve())
    return chosen


if __name__ == "__main__":
    sys.exit(main())

r"""Does targeted selection beat a random draw? Strategies on a real pool, one `selectmoe compare`.

    python benchmarks/targeted.py --data DATA --model SMOLLM2 --out work/targeted --parallel 4
    python benchmarks/targeted.py --data DATA --out work/tiny --tiny        # on a CPU, in minutes

``DATA`` holds ``less/train/processed`` (the pool) and ``eval`` (the questions). Some questions of
the target tasks are held back from the evaluation: they are the targets. The arms come in the order
of their importance. Questions are asked in the chat format of the training, SciQ's without the text
that holds the answer; ``--plain`` asks them as the harness does. Where ``--minutes`` end the run,
the table has the arms that are whole, and the same command goes on later. It writes
``targeted.md``, ``compare.json`` and ``compare.html``.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from targeted_arms import RECIPES, Tables, possible, recipe, strategies
from targeted_data import TASKS, hold_back, most_questions, target_options
from targeted_table import markdown

from selectmoe_core.compare import Comparison, Sources, plan_comparison
from selectmoe_core.errors import SelectMoEError
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry

PATIENCE = 60.0
"""Seconds that a run has to end after its time is over."""
HARNESS = {"tasks": [f"{task}_local" for task in TASKS]}
"""Questions as the harness prompts them: SciQ's with the text that holds the answer."""
CHAT = {
    "tasks": ["arc_easy_local", "sciq_closed_local", "hellaswag_local", "piqa_local"],
    "apply_chat_template": "training",
}
"""Questions as a user of the trained model asks them; SciQ without the text."""
TINY: Tables = {
    "pool": {"subset_ratio": 0.02},
    "warmup": {"subset_ratio": 0.2},
    "train": {"epochs": 1, "lora_rank": 4, "lora_alpha": 8, "batch_size": 16},
}
"""Options of a trial: 384 rows."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, and write the table of what is there."""
    chosen = _chosen(arguments)
    registry = Registry(load_plugins())
    chosen.out.mkdir(parents=True, exist_ok=True)
    data = chosen.out / "data"
    hold_back(chosen.data, data, chosen.targets, chosen.held_back, chosen.questions)
    # The tasks find their questions by this variable.
    os.environ["SELECTMOE_DATA"] = str(data.resolve())
    wanted = strategies(chosen.model, data / "targets", chosen.targets)
    wanted = {name: tables for name, tables in wanted.items() if name in (chosen.arms or wanted)}
    arms = possible(wanted, registry)
    if missing := wanted.keys() - arms.keys():
        print(f"no plugin offers what these need: {', '.join(sorted(missing))}", flush=True)
    try:
        planned = _plan(chosen, registry, arms, chosen.seeds)
        whole = _compare(chosen, chosen.minutes)
        if not whole and not _compare_finished(chosen, registry, planned, arms):
            print("no strategy is whole yet: run the same command again", flush=True)
            return 1
    except SelectMoEError as error:
        print(f"{error}\nHint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return _show(chosen)


def _plan(
    chosen: argparse.Namespace, registry: Registry, arms: Mapping[str, Tables], seeds: Sequence[int]
) -> Comparison:
    """Write the recipe of a comparison, and return its plan."""
    base = tomllib.loads((RECIPES / "smollm2-compare.toml").read_text(encoding="utf-8"))
    tables = {name: table for name, table in base.items() if isinstance(table, dict)}
    tables["pool"] |= {"path": str((chosen.data / "less/train/processed").resolve())}
    tables["select"] |= {"fraction": chosen.fraction}
    if chosen.answer_tokens:
        budget = {"tokens": chosen.answer_tokens, "count": "answers"}
        tables["select"] = {"use": "token-budget", **budget}
    tables["train"] |= {"model": chosen.model}
    tables["evaluate"] = {
        **(HARNESS if chosen.plain else CHAT),
        "include_path": [str(RECIPES / "tasks/local_eval")],
        "allow_task_code": True,
        "task_data": [str((chosen.out / "data/eval").resolve())],
        "limit": most_questions(chosen.out / "data"),  # the recipe's own would cut --questions
        "batch_size": 32,  # "auto" would try how much fits, while others use the GPU too
    }
    if chosen.tiny:
        for name, options in TINY.items():
            tables[name] = {**tables.get(name, {}), **options}
    path = chosen.out / "targeted.toml"
    table = recipe(arms, chosen.baselines, seeds, tables)
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return plan_comparison(Sources((path,), (), RECIPES), registry, _outputs(chosen))


def _outputs(chosen: argparse.Namespace) -> Path:
    return Path(chosen.out / "outputs").resolve()


def _compare(chosen: argparse.Namespace, minutes: float) -> bool:
    """Run a comparison; return whether it ended within its time.

    Raises:
        SelectMoEError: it failed.
    """
    command = [sys.executable, "-m", "selectmoe_core", "compare", str(chosen.out / "targeted.toml")]
    command += ["--outputs", str(_outputs(chosen)), "--parallel", str(chosen.parallel)]
    command += ["--device", chosen.device]
    process = subprocess.Popen(command)
    try:
        code = process.wait(timeout=60 * minutes if minutes else None)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return False
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    if code:
        raise SelectMoEError(f"the comparison ended with code {code}", hint="see its error above")
    return True


def _compare_finished(
    chosen: argparse.Namespace,
    registry: Registry,
    planned: Comparison,
    arms: Mapping[str, Tables],
) -> bool:
    """Compare the arms and seeds that are whole; return whether there is a strategy among them."""
    nodes = planned.plan.nodes
    done = {
        arm.label: {
            trial.seed for trial in arm.trials if planned.plan.cached(nodes[trial.evaluate])
        }
        for arm in planned.arms
    }
    shown = ", ".join(f"{label} {len(seeds)}" for label, seeds in done.items())
    print(f"evaluated: {shown}", flush=True)
    seeds = [seed for seed in chosen.seeds if seed in done["random"]]
    whole = {name: tables for name, tables in arms.items() if done[name].issuperset(seeds)}
    if not seeds or not whole or not done["base"]:
        return False
    chosen.baselines = [
        name for name in chosen.baselines if name == "base" or done[name].issuperset(seeds)
    ]
    _plan(chosen, registry, whole, seeds)
    return _compare(chosen, 0)


def _show(chosen: argparse.Namespace) -> int:
    found = sorted(
        _outputs(chosen).glob("targeted/*/*/compare.json"), key=lambda path: path.stat().st_mtime
    )
    for name in ("compare.json", "compare.html", "compare.md"):
        shutil.copyfile(found[-1].with_name(name), chosen.out / name)
    document: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    text = markdown(document)
    (chosen.out / "targeted.md").write_text(text, encoding="utf-8")
    print(text, flush=True)
    return 0


def _chosen(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    target_options(parser, Path("work/targeted"))
    parser.add_argument("--model", help="the model to train: a folder, a GGUF file or a hub id")
    parser.add_argument("--held-back", type=int, help="target examples of each task [100]")
    parser.add_argument("--questions", type=int, help="of each task; 0 for all [1000]")
    parser.add_argument("--fraction", type=float, help="of the pool that is kept [0.05]")
    parser.add_argument("--answer-tokens", type=int, help="for each arm, instead of --fraction")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--parallel", type=int, default=1, help="stages at the same time")
    parser.add_argument(
        "--plain", action="store_true", help="the harness's prompts, no chat format"
    )
    parser.add_argument("--minutes", type=float, default=0, help="end the run after; 0 for never")
    parser.add_argument("--tiny", action="store_true", help="a trial: few rows and questions")
    chosen = parser.parse_args(arguments)
    usual: dict[str, Any] = {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "held_back": 100, "questions": 1000, "fraction": 0.05, "seeds": [1, 2, 3],
    }  # fmt: skip
    tiny = {"model": "bundled:nano-llama", "held_back": 10, "questions": 20, "fraction": 0.1,
            "seeds": [1, 2]}  # fmt: skip
    for name, value in (tiny if chosen.tiny else usual).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if Path(chosen.model).exists():
        chosen.model = str(Path(chosen.model).resolve())
    chosen.baselines = ["base", "random", "length"]
    return chosen


if __name__ == "__main__":
    start = time.monotonic()
    code = main()
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    sys.exit(code)

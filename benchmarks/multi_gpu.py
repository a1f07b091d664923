"""Scoring, warm-up, LoRA and evaluation on 1, 2, 4, 8 GPUs of one host, beside one GPU.

    python benchmarks/multi_gpu.py --data data --gpus 1,2     # 60 GB of disk; 120 for warmup-all
    python benchmarks/multi_gpu.py --tiny --data data         # gloo processes on the CPU

Models of OLMoE-1B-7B's and Llama-2-7B's shape with random weights, rows of the real pool, all of it
through ``selectmoe run ... --num-processes N``. A part's rate is its real tokens over the seconds
that its slowest process needed, without start-up, and for a training without its first step, which
compiles kernels; its efficiency is that rate over N times the rate of one. Each part prints its
line and writes it to a JSON lines file at once; one that fails prints why, and the others still
run.

Parts, with the minutes they take for one number of GPUs: ``prepare`` (3.5, once), ``score`` (2 to
2.5), and by estimate ``score-ray`` (3; by actors of a Ray cluster of this host), ``warmup`` (2),
``warmup-all`` (5; by FSDP from two GPUs on; one GPU needs 120 GiB for it, and each writes a
checkpoint of 84 GB), ``lora`` (2), ``evaluate`` (2), ``kill`` (3; one process is killed while it
scores). Two commands on parts of the GPUs can share ``--work`` once ``prepare`` has ended.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from device import describe
from measuring import SELECTMOE, call
from multi_gpu_runs import LORA, SCORE, WARMUP, Bench, finished
from pool_sample import make_tokenizer, repeated_pool
from random_weights import make_checkpoint
from shapes import LLAMA_CHECKPOINT, OLMOE_CHECKPOINT, TINY, TINY_EXPERTS

from selectmoe_core.stages.node_spec import WORKER

FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: 1
machine_rank: 0
num_processes: {processes}
mixed_precision: "no"
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: OlmoeDecoderLayer
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: FULL_STATE_DICT
  fsdp_activation_checkpointing: false
"""
SCORED = re.compile(r"\[(score[^\]]*)\].*?(\d+) examples scored in ([0-9.]+) s")


def prepare(bench: Bench) -> None:
    """Make the selector, the pool and its tokens, and let kernels be compiled into their caches."""
    bench.work.mkdir(parents=True, exist_ok=True)
    if not (bench.work / "converted/config.json").is_file():
        make(bench, "olmoe", OLMOE_CHECKPOINT | (TINY_EXPERTS if bench.tiny else {}))
        call([*SELECTMOE, "convert", str(bench.work / "olmoe"), str(bench.work / "converted")])
        shutil.rmtree(bench.work / "olmoe")
    bench.data = repeated_pool(bench.data, bench.work / "data", bench.sizes["examples"])
    (bench.work / "base/store").mkdir(parents=True, exist_ok=True)
    bench.run(bench.recipe("score", SCORE), "base", 1, "--until", "score")


def make(bench: Bench, name: str, config: dict[str, Any]) -> None:
    """Make a model of random weights with a tokenizer of the pool."""
    make_tokenizer(bench.data, bench.work / "tokenizer", 2048 if bench.tiny else 32000)
    make_checkpoint(config | (TINY if bench.tiny else {}), bench.work / name, bench.device)
    shutil.copytree(bench.work / "tokenizer", bench.work / name, dirs_exist_ok=True)


def score(bench: Bench, processes: int, part: str = "score") -> dict[str, Any]:
    """Score the pool; compare the scores with one process's."""
    outputs = bench.run(bench.recipe("score", SCORE), part, processes, "--until", "score")
    folder, manifest = finished(outputs, "score")
    sources = manifest["facts"]["tokens"]["sources"].values()
    tokens = sum(source["tokens"] for source in sources)
    logs = (path.read_text(encoding="utf-8") for path in outputs.glob("multi/*/*/run.log"))
    told = SCORED.findall("".join(logs))
    seconds = [float(found[2]) for found in told]
    shares = [int(found[1]) for found in told]
    row = {
        "tokens_per_second": tokens / max(seconds),
        "seconds": max(seconds),
        "process_seconds": sum(seconds),
        "stage_seconds": manifest["seconds"],
        "examples_per_process": shares,
        "memory": manifest["details"].get("peak_gpu_bytes"),
    }
    return row | _against_one(bench, "score", processes, folder, _score_difference)


def score_ray(bench: Bench, processes: int) -> dict[str, Any]:
    """Score the pool by a Ray cluster of this host, an actor for each GPU."""
    return score(bench, processes, "score-ray")


def _score_difference(one: Path, other: Path) -> dict[str, Any]:
    from selectmoe_core.data.scores import ScoreTable

    first, second = (ScoreTable.open(folder).score() for folder in (one, other))
    return {"largest_score_difference": float(abs(first - second).max())}


def warmup(bench: Bench, processes: int) -> dict[str, Any]:
    """Train the router."""
    recipe = bench.recipe("warmup", WARMUP, SCORE_AFTER)
    outputs = bench.run(recipe, "warmup", processes, "--until", "warmup")
    return _training(bench, "warmup", "warmup", processes, outputs)


def warmup_all(bench: Bench, processes: int) -> dict[str, Any]:
    """Train all parameters, shared out by FSDP; one GPU holds them by itself."""
    changes = {"trainable": "all", "checkpointing": "true", "steps": min(bench.sizes["steps"], 6)}
    recipe = bench.recipe("warmup-all", WARMUP, SCORE_AFTER, **changes)
    more: list[str] = []
    if processes > 1 and not bench.tiny:
        config = bench.work / f"fsdp-{processes}.yaml"
        config.write_text(FSDP.format(processes=processes), encoding="utf-8")
        more = ["--accelerate-config", f"warmup={config}"]
    outputs = bench.run(recipe, "warmup-all", processes, "--until", "warmup", *more)
    return _training(bench, "warmup-all", "warmup", processes, outputs)


def lora(bench: Bench, processes: int) -> dict[str, Any]:
    """Fine-tune with LoRA."""
    if not (bench.work / "llama/config.json").is_file():
        make(bench, "llama", LLAMA_CHECKPOINT)
    outputs = bench.run(bench.recipe("lora", LORA), "lora", processes, "--until", "train")
    return _training(bench, "lora", "train", processes, outputs)


def evaluate(bench: Bench, processes: int) -> dict[str, Any]:
    """Evaluate what ``lora`` trained on one GPU, on all of them."""
    recipe = bench.recipe("lora", LORA)
    source = bench.work / "lora-1"
    if not source.exists():
        lora(bench, 1)
    shutil.copytree(source, bench.work / f"evaluate-{processes}", symlinks=True, dirs_exist_ok=True)
    outputs = bench.run(recipe, "evaluate", processes)
    _, manifest = finished(outputs, "evaluate")
    tasks = manifest["facts"]["tasks"]
    row: dict[str, Any] = {"seconds": manifest["seconds"], "tasks": len(tasks)}
    if processes > 1 and (bench.work / "evaluate-1").exists():
        one = finished(bench.work / "evaluate-1", "evaluate")[1]["facts"]["tasks"]
        row["equal_to_one"] = one == tasks
    return row


def kill(bench: Bench, processes: int) -> dict[str, Any]:
    """Kill one rank while it scores; the next run takes what is missing."""
    recipe = bench.recipe("kill", SCORE)
    outputs = bench.work / f"kill-{processes}"
    shutil.rmtree(outputs, ignore_errors=True)
    bench.seed(outputs / "store")
    command = [*bench.command(recipe, outputs, processes), "--until", "score"]
    process = subprocess.Popen(
        command, env=bench.environment(processes), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(_parts(outputs)) < 2:
        time.sleep(0.05)
    victims = list(_workers(process.pid, rank="1"))
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    done = _parts(outputs)
    start = time.monotonic()
    bench.run(recipe, "kill", processes, "--until", "score")
    again = time.monotonic() - start
    kept = all(_parts(outputs).get(part) == when for part, when in done.items())
    return {
        "killed": len(victims),
        "exit_code": process.returncode,
        "message": " ".join(line for line in said.splitlines() if line.startswith("Error: ")),
        "shards_kept": len(done),
        "kept_ones_untouched": kept,
        "shards_made_by_the_next_run": len(_parts(outputs)) - len(done),
        "seconds_of_the_next_run": round(again, 1),
    }


SCORE_AFTER = """
[score]
use = "router"
"""
WORK: dict[str, Callable[[Bench, int], dict[str, Any]]] = {
    "score": score,
    "score-ray": score_ray,
    "warmup": warmup,
    "warmup-all": warmup_all,
    "lora": lora,
    "evaluate": evaluate,
    "kill": kill,
}


def _parts(outputs: Path) -> dict[str, int]:
    """Return the shards that are there, and when each was written."""
    found = outputs.glob("store/score-*/scores/part-*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in found}


def _workers(ancestor: int, rank: str) -> Iterator[int]:
    """Yield the worker processes of a rank below a process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text()
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    for pid in parents:
        above = pid
        while above in parents and above != ancestor:
            above = parents[above]
        if above != ancestor:
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and WORKER.encode() in command:
            yield pid


def _training(bench: Bench, part: str, stage: str, processes: int, outputs: Path) -> dict[str, Any]:
    folder, manifest = finished(outputs, stage)
    facts = manifest["facts"]
    row = {
        "tokens_per_second": facts["steady_tokens_per_second"],
        "with_the_first_step": facts["tokens_per_second"],
        "seconds": facts["seconds"],
        "stage_seconds": manifest["seconds"],
        "steps": facts["steps"],
        "memory": manifest["details"].get("peak_gpu_bytes"),
    }
    found = row | _against_one(bench, part, processes, folder, _loss_difference, stage)
    # Of all parameters, the optimizer's state in fp32 among them, these are 84 GB.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if stage == "warmup":
        shutil.rmtree(folder / "model", ignore_errors=True)
    return found


def _loss_difference(one: Path, other: Path) -> dict[str, Any]:
    """Return the largest relative difference of each figure of the training curves."""
    first, second = (_curve(folder) for folder in (one, other))
    found: dict[str, Any] = {"same_steps": len(first) == len(second)}
    for name in ("loss", "cross_entropy", "balance", "constraint", "grad_norm"):
        if name in first[0]:
            pairs = [(a[name], b[name]) for a, b in zip(first, second, strict=False)]
            found[f"{name}_differs"] = max(abs(a - b) / max(abs(a), 1e-12) for a, b in pairs)
    return found


def _curve(folder: Path) -> list[dict[str, float]]:
    text = (folder / "train_log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _against_one(
    bench: Bench,
    part: str,
    processes: int,
    folder: Path,
    compare: Callable[[Path, Path], dict[str, Any]],
    stage: str | None = None,
) -> dict[str, Any]:
    if processes == 1 or not (bench.work / f"{part}-1").exists():
        return {}
    one, _ = finished(bench.work / f"{part}-1", stage or part)
    return compare(one, folder)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--work", type=Path, default=Path("outputs/multi-gpu"))
    parser.add_argument("--json", type=Path, default=Path("multi_gpu.jsonl"))
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs, or of processes")
    parser.add_argument("--only", default=",".join(WORK), help="parts, separated by commas")
    parser.add_argument("--examples", type=int, help="rows of the pool; copies, if it has fewer")
    parser.add_argument("--steps", type=int, help="optimizer steps of each training")
    parser.add_argument("--tiny", action="store_true", help="tiny models, gloo on the CPU")
    return parser.parse_args()


def main() -> None:
    """Run every part on every number of GPUs."""
    arguments = parse()
    bench = Bench(arguments)
    bench.parts.write("machine", {"machine": describe(bench.device), "tiny": bench.tiny})
    start = time.monotonic()
    prepare(bench)
    bench.parts.write("prepare", {}, start)
    for part in arguments.only.split(","):
        for processes in map(int, arguments.gpus.split(",")):
            if part == "kill" and processes == 1:
                continue  # nobody would be left to go on

            def work(part: str = part, processes: int = processes) -> dict[str, Any]:
                return bench.efficient(part, processes, WORK[part](bench, processes))

            bench.parts.run(part, work, processes=processes)
    sys.exit(1 if bench.parts.failed else 0)


if __name__ == "__main__":
    main()

"""What handing out a shard costs: 100,000 shards of a trivial scorer on this host, and by Ray.

    python benchmarks/executors.py                         # both executors, then their ratio
    python benchmarks/executors.py --shards 5000 --actors 2

A pool of one-line conversations, one example a shard, and a scorer that returns their lengths: what
remains is the work of the core and of the executor. For each executor: seconds and processor time
for a shard (of the process that hands out and counts, and of all processes together), and the
anonymous memory of that process after 10 % of the shards and at the end. The selections are
compared byte by byte. Start-up (Ray's cluster, imports) is not counted: time runs from the first
shard to the last.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from device import describe
from measuring import SELECTMOE, anonymous

PLUGIN = '''
"""A scorer that does nothing."""
from contextlib import contextmanager
import numpy as np
from selectmoe_core import Component, Config, Need, ShardScores, hookimpl

class TrivialConfig(Config):
    """Score by the length of the answer."""

class Trivial:
    def __init__(self, config):
        pass
    @contextmanager
    def open(self, job):
        yield self
    def score(self, shard):
        return ShardScores(np.array([float(len(one.response)) for one in shard.examples]))

@hookimpl
def selectmoe_scorers():
    needs = frozenset({Need.POOL})
    return [Component("trivial", TrivialConfig, Trivial, needs=lambda _: needs, torch=True)]
'''
RECIPE = """
format = 1
name = "executors"
[pool]
use = "jsonl"
path = "pool.jsonl"
[score]
use = "trivial"
shard_examples = 1
[select]
use = "top-fraction"
fraction = 0.01
"""
WORKER = b"selectmoe_core.runner.worker"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Measure:
    """One executor.

    Attributes:
        executor: its name and actors.
        shards: how many were made.
        seconds: from the first shard to the last.
        driver_ms: processor milliseconds for a shard of the process that hands out and counts.
        all_ms: the same of all processes of the run, those of Ray too.
        mib_at_tenth: anonymous MiB of that process after 10 % of the shards.
        mib_at_end: the same at the end.
    """

    executor: str
    shards: int
    seconds: float = 0.0
    driver_ms: float = 0.0
    all_ms: float = 0.0
    mib_at_tenth: float = 0.0
    mib_at_end: float = 0.0


def prepare(work: Path, shards: int) -> None:
    """Write the plugin, the recipe and a pool with a line for each shard."""
    site = work / "site"
    info = site / "executors_bench-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "executors_bench.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: executors-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[selectmoe]\nbench = executors_bench\n")
    (work / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    with (work / "pool.jsonl").open("w", encoding="utf-8") as file:
        for number in range(shards):
            turns = [
                {"role": "user", "content": f"Question {number}?"},
                {"role": "assistant", "content": "." * (number * 7919 % 1009 + 1)},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def measure(work: Path, shards: int, executor: str, actors: int) -> Measure:
    """Run the recipe with an executor, and look at its processes meanwhile."""
    options = ["executor.use=local", "--num-processes", "1"]
    if executor == "ray":
        options = ["executor.use=ray", f"executor.actors={actors}"]
    name = f"{executor}, {actors} actors" if executor == "ray" else f"{executor}, 1 process"
    path = os.pathsep.join(filter(None, [str(work / "site"), os.environ.get("PYTHONPATH", "")]))
    command = [*SELECTMOE, "run", "recipe.toml", *options, "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--outputs", executor, "--quiet"],
        cwd=work,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )
    try:
        return _watched(process, work, Measure(name, shards))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _watched(process: "subprocess.Popen[bytes]", work: Path, found: Measure) -> Measure:
    """Look at a run until it ends: how many shards there are, time and memory of its processes."""
    outputs = work / found.executor.partition(",")[0]
    start, first = (0.0, 0.0, 0.0), 0
    while process.poll() is None:
        time.sleep(0.5)
        made = _made(outputs)
        driver = _driver(process.pid)
        if not made or driver is None:
            continue
        now = (time.monotonic(), _processor([driver]), _processor(_family(process.pid)))
        if not first:
            start, first = now, made
        if made < found.shards:
            found.mib_at_end = anonymous(driver) / 2**20
        if made >= found.shards / 10 and not found.mib_at_tenth:
            found.mib_at_tenth = found.mib_at_end
        if made > first and (made < found.shards or not found.seconds):
            found.seconds = (now[0] - start[0]) * found.shards / (made - first)
            found.driver_ms = (now[1] - start[1]) * 1000 / (made - first)
            found.all_ms = (now[2] - start[2]) * 1000 / (made - first)
    if process.returncode:
        raise RuntimeError(f"{found.executor} ended with code {process.returncode}")
    return found


def _made(outputs: Path) -> int:
    return sum(
        entry.name.startswith("part-")
        for folder in outputs.glob("store/score-*/scores")
        for entry in os.scandir(folder)
    )


def _family(pid: int) -> list[int]:
    """Return a process and everything below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _driver(pid: int) -> int | None:
    """Return the process that executes the stage."""
    for child in _family(pid)[1:]:
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if WORKER in words and b"--check" not in words:
            return child
    return None


def _processor(pids: list[int]) -> float:
    """Return the processor seconds of processes that are still there."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def main() -> None:
    """Measure the executors in turn, and print each and their ratio as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--only", choices=["local", "ray"])
    parser.add_argument("--work", type=Path, help="a folder to keep; by default a temporary one")
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="executors-"))
    work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(describe("cpu")), flush=True)
    try:
        if not (work / "pool.jsonl").exists():
            prepare(work, asked.shards)
        found = []
        for executor in ("local", "ray"):
            if asked.only in (None, executor):
                found.append(measure(work, asked.shards, executor, asked.actors))
                print(json.dumps(asdict(found[-1])), flush=True)
        if len(found) == 2:
            _compare(work, *found)
    finally:
        if asked.work is None:
            shutil.rmtree(work, ignore_errors=True)


def _compare(work: Path, local: Measure, ray: Measure) -> None:
    selections = [
        next((work / name).glob("store/select-*/selected_data.jsonl")).read_bytes()
        for name in ("local", "ray")
    ]
    ratios = {
        "ratio_seconds": ray.seconds / local.seconds,
        "ratio_processor": ray.all_ms / local.all_ms,
        "same_selection": selections[0] == selections[1],
    }
    print(json.dumps(ratios), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Runs of recipes on several GPUs, for ``multi_gpu.py``."""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from measuring import SELECTMOE, call
from parts import Parts
from pool_sample import RECIPE_HEAD, subset_ratio

SCORE = """
[score]
use = "router"
model = "{work}/converted"
shard_examples = {shard}
"""
WARMUP = """
[warmup]
use = "select-moe-constraint"
model = "{work}/converted"
max_steps = {steps}
batch_size = {batch}
micro_batch_size = {micro_batch}
trainable = "{trainable}"
activation_checkpointing = {checkpointing}
"""
LORA = """
[score]
use = "random"
[select]
use = "top-k"
k = {k}
[train]
use = "llama-lora"
model = "{work}/llama"
max_steps = {steps}
batch_size = {total}
lora_dropout = 0.0
activation_checkpointing = true
[evaluate]
use = "lm-eval"
tasks = ["bundled:nano"]
limit = {limit}
"""
FULL = {
    "examples": 60000,
    "shard": 512,
    "steps": 12,
    "k": 4000,
    "batch": 256,
    "micro_batch": 16,
    "total": 128,
}
SMALL = {
    "examples": 400,
    "shard": 32,
    "steps": 3,
    "k": 48,
    "batch": 16,
    "micro_batch": 2,
    "total": 8,
}


class Bench:
    """The settings, and where results go."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.tiny: bool = arguments.tiny
        self.data: Path = arguments.data.resolve()
        self.work: Path = arguments.work.resolve()
        self.parts = Parts(arguments.json)
        self.device = "cpu" if self.tiny else "cuda"
        self.sizes = SMALL if self.tiny else FULL
        if arguments.examples:
            self.sizes = self.sizes | {"examples": arguments.examples}
        if arguments.steps:
            self.sizes = self.sizes | {"steps": arguments.steps}
        self.rates: dict[str, float] = {}
        """Tokens per second of each process, with the fewest processes."""

    def efficient(self, part: str, processes: int, found: dict[str, Any]) -> dict[str, Any]:
        """Return a part's figures with its efficiency, where it has a rate."""
        rate = found.get("tokens_per_second")
        if rate is None:
            return found
        one = self.rates.setdefault(part, rate / processes)
        return {"efficiency": rate / processes / one} | found

    def recipe(self, name: str, *tables: str, **changes: object) -> Path:
        """Write a recipe of the pool and of further tables."""
        values = {
            **self.sizes,
            "name": "multi",
            "data": self.data,
            "work": self.work,
            "ratio": subset_ratio(self.data, self.sizes["examples"]),
            "limit": 4 if self.tiny else 40,
            "trainable": "router",
            "checkpointing": "false",
            **changes,
        }
        path = self.work / f"{name}.toml"
        path.write_text("".join((RECIPE_HEAD, *tables)).format(**values), encoding="utf-8")
        return path

    def run(self, recipe: Path, part: str, processes: int, *more: str) -> Path:
        """Run a recipe in an outputs folder of its own, which starts from the pool's tokens."""
        outputs = self.work / f"{part}-{processes}"
        if not outputs.exists():
            self.seed(outputs / "store")
        command = self.command(recipe, outputs, processes, ray=part.endswith("-ray"))
        call([*command, *more], self.environment(processes))
        return outputs

    def command(
        self, recipe: Path, outputs: Path, processes: int, *, ray: bool = False
    ) -> list[str]:
        """Return the command that runs a recipe, in processes of this host or in actors of Ray."""
        command = [*SELECTMOE, "run", str(recipe), "--outputs", str(outputs)]
        command += ["--device", self.device]
        if ray:
            return [*command, "--executor", "ray", f"executor.actors={processes}"]
        return [*command, "--num-processes", str(processes)]

    def environment(self, processes: int) -> dict[str, str]:
        """Show the first GPUs alone; on the CPU every process has one thread."""
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        ids = seen if seen != [""] else [str(number) for number in range(64)]
        shown = {} if self.tiny else {"CUDA_VISIBLE_DEVICES": ",".join(ids[:processes])}
        # Multicast through NVLink is refused in many containers; NCCL then fails to start.
        return os.environ | shown | {"NCCL_NVLS_ENABLE": "0"}

    def seed(self, store: Path) -> None:
        """Take over pool and tokens, which are no part of what is measured."""
        store.mkdir(parents=True)
        for path in (self.work / "base/store").glob("*"):
            if path.name.startswith(("pool-", "encoded-")) and path.is_dir():
                shutil.copytree(path, store / path.name)


def finished(outputs: Path, stage: str) -> tuple[Path, dict[str, Any]]:
    """Return a stage's finished artifact and its manifest."""
    [path] = outputs.glob(f"store/{stage}-*/artifact.json")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return path.parent, manifest

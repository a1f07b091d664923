"""Whole runs as processes of their own: a chain of fakes, and the real one made tiny."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from fake_recipe import HEAD

from fuzzing.place import Said

MARK = "SELECTMOE_FUZZ_CASE"
"""The variable by which the processes of a case are known, whoever their parent is by now."""
MANIFEST = "artifact.json"
NOTES = (".log", ".md")

FAKE = f"""\
{HEAD}[convert]
use = "fake-slow-convert"
model = "./base"
[warmup]
use = "fake-slow-train"
subset_ratio = 0.5
[score.model]
use = "fake-score"
reads_model = true
shard_examples = 20
[score.child]
use = "fake-child"
shard_examples = 5
[select]
use = "top-fraction"
score = "child"
fraction = 0.25
[train]
use = "fake-slow-train"
model = "./base"
[evaluate]
use = "fake-child-eval"
"""
NANO = """\
format = 1
name = "nano"
seed = 5
[chat]
max_length = 96
[pool]
use = "nano"
examples = 48
damaged = 0.4
[convert]
use = "olmoe-trashcan"
model = "bundled:nano-olmoe"
[warmup]
use = "select-moe-contrastive"
subset_ratio = 0.5
batch_size = 4
max_steps = 6
checkpoint_every = 2
[score]
use = "router"
shard_examples = 8
[select]
use = "top-fraction"
fraction = 0.5
[train]
use = "llama-lora"
model = "bundled:nano-llama"
batch_size = 4
epochs = 1
lora_rank = 4
checkpoint_every = 2
[evaluate]
use = "lm-eval"
tasks = ["bundled:nano"]
limit = 3
[compare]
baselines = ["base"]
"""


@dataclass(frozen=True)
class Chain:
    """A recipe in a folder of its own.

    Attributes:
        folder: the working folder of its runs.
        name: names the chain in what is printed.
        patience: seconds after which a run that nobody killed counts as hanging.
        environment: what its processes find beside the environment of this one.
        recipe: the recipe, and what else a command line says of it.
    """

    folder: Path
    name: str
    patience: float
    environment: dict[str, str] = field(default_factory=dict)
    recipe: tuple[str, ...] = ("recipe.toml",)

    @classmethod
    def fake(cls, folder: Path, *, slow: float = 0.0, rows: int = 40) -> "Chain":
        """Make a chain of fakes; each of its steps takes ``slow`` seconds."""
        control = folder / "control"
        (folder / "base").mkdir(parents=True, exist_ok=True)
        control.mkdir(exist_ok=True)
        if slow:
            (control / "slow").write_text(str(slow))
        lines = [
            json.dumps(
                {"dataset": "ab"[n % 2], "prompt": f"q{n}", "completion": "a" * (1 + n * 7 % 53)}
            )
            for n in range(rows)
        ]
        (folder / "pool.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (folder / "base" / "config.json").write_text('{"model_type": "fake"}')
        (folder / "base" / "model.safetensors").write_bytes(b"weights")
        (folder / "recipe.toml").write_text(FAKE)
        return cls(folder, "fake", 600.0, {"FAKE_CHAIN": str(control)})

    @classmethod
    def nano(cls, folder: Path) -> "Chain":
        """Make the real chain over the bundled models, a few steps of each stage."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_text(NANO)
        return cls(folder, "nano", 600.0)

    def start(self, outputs: Path, *arguments: str, mark: str = "") -> subprocess.Popen[str]:
        """Start a run in a session of its own; what it says goes into files beside its outputs."""
        command = [sys.executable, "-m", "selectmoe_core", "run", *self.recipe, "--threads", "1"]
        outputs.mkdir(parents=True, exist_ok=True)
        log = outputs.with_name(f"{outputs.name}.said")
        with log.open("a", encoding="utf-8") as said:
            return subprocess.Popen(
                [*command, "--outputs", str(outputs), *arguments],
                cwd=self.folder,
                env=os.environ | self.environment | {MARK: mark},
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )

    def finish(self, outputs: Path, *arguments: str, mark: str = "") -> Said:
        """Run to the end and return what was said; a run that hangs is killed, its code is -9."""
        log = outputs.with_name(f"{outputs.name}.said")
        before = log.stat().st_size if log.exists() else 0
        process = self.start(outputs, *arguments, mark=mark)
        try:
            code = process.wait(timeout=self.patience)
        except subprocess.TimeoutExpired:
            end_all(mark)
            code = process.wait()
        return Said(code, "", log.read_bytes()[before:].decode("utf-8", "replace"))


def processes_of(mark: str) -> list[psutil.Process]:
    """Return the living processes of a case, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_all(mark: str) -> None:
    """Kill every process of a case."""
    for process in processes_of(mark):
        try:
            process.kill()
        except psutil.Error:
            continue


def results(outputs: Path) -> dict[str, str]:
    """Return what every finished artifact holds: hashes of its files, and its facts.

    Names that begin with a dot, checkpoints on the way and times are no results, and neither is
    where the outputs are: some files name the model that they were made with by its place.
    """
    found: dict[str, str] = {}
    here = str(outputs).encode()
    for manifest in sorted((outputs / "store").glob(f"*/{MANIFEST}")):
        folder = manifest.parent
        try:
            facts = json.loads(manifest.read_bytes().replace(here, b"OUTPUTS"))["facts"]
        except (ValueError, OSError):  # a damaged artifact that nothing needed: no result
            continue
        found[f"{folder.name} facts"] = json.dumps(_timeless(facts), sort_keys=True)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and path != manifest and _is_result(name):
                content = path.read_bytes().replace(here, b"OUTPUTS")
                found[f"{folder.name}/{name}"] = hashlib.sha256(content).hexdigest()
    return found


def _is_result(name: str) -> bool:
    parts = name.split("/")
    if any(part.startswith(".") for part in parts) or parts[0] in (
        "checkpoints",
        "scratch",
        "work",
    ):
        return False
    # Cards and logs are for people, who may change them; the store does not check them either.
    # lm-eval writes times and durations into the others; what they say stands in the facts.
    return not parts[-1].endswith(NOTES) and not parts[-1].startswith(
        ("results_", "samples_", "train_log")
    )


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if "second" not in key}
    return value


def leftovers(outputs: Path) -> list[str]:
    """Return the artifacts of a finished run that are not whole."""
    return [
        folder.name
        for folder in sorted((outputs / "store").glob("*-*"))
        if folder.is_dir() and not (folder / MANIFEST).is_file()
    ]

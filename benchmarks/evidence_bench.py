"""What all arms of the evidence share: rows, the base model, selectmoe's parts, and keys."""

import argparse
import gc
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from evidence_arms import Arm
from evidence_base import RECIPE, make_base, text_files
from evidence_data import Judged
from measuring import append
from rows import Rows

from selectmoe_core import Job, ModelRef, Shard, ShardScores
from selectmoe_core.config import parse
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import FileHashes
from selectmoe_core.tokens.chat import ChatFormat

RESULTS = "evidence.jsonl"


@dataclass(frozen=True)
class Bench:
    """What all arms share.

    Attributes:
        chosen: the command line.
        registry: of the plugins.
        chat: the format of all rows.
        pool: rows to learn from.
        judged: sets to judge scores by.
        rows: the rows of all of these sets, one set behind another.
    """

    chosen: argparse.Namespace
    registry: Registry
    chat: ChatFormat
    pool: Rows
    judged: tuple[Judged, ...]
    rows: Rows

    @property
    def out(self) -> Path:
        """Where results go."""
        out: Path = self.chosen.out
        return out

    @property
    def work(self) -> Path:
        """Where models and tokens go."""
        return work_folder(self.chosen)

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def job(self, seed: int, work: Path) -> Job:
        """Return the job of a stage that works in ``work``."""
        return Job(
            seed=seed,
            device=self.device,
            dtype="bfloat16" if self.device == "cuda" else "float32",
            chat=self.chat,
            scratch=work / "scratch",
            checkpoints=work / "checkpoints",
            models=self.registry.models,
            damages=self.registry.damages,
        )

    def part(self, kind: Kind, name: str, options: Any) -> Any:  # noqa: ANN401
        """Return a component, built with its options."""
        component = self.registry.get(kind, name, where="evidence").component
        return component.build(parse(component.config, options, where=name))

    @cached_property
    def base_key(self) -> str:
        """The digest of all that makes the base model."""
        chosen = self.chosen
        text = [(path.name, path.stat().st_size) for path in text_files(chosen.data / "text")]
        healing = chosen.heal, chosen.tokens, chosen.documents
        llama = FileHashes(None).of_tree(chosen.llama)
        return digest(llama, text, healing, self.pool.ids, chosen.max_length, self.device, RECIPE)

    @cached_property
    def setting(self) -> str:
        """The digest of all that the arms share: base model, pool, and rows to judge by."""
        kinds = [[one.name, one.kinds.tolist()] for one in self.judged]
        return digest(self.base_key, self.rows.ids, kinds)

    def key(self, arm: Arm) -> str:
        """Return the digest of all that decides an arm's result."""
        return digest(self.setting, asdict(arm))

    @cached_property
    def base(self) -> Path:
        """The base model, made where it is not there yet."""
        folder = (self.chosen.bases or self.work) / f"base-{self.base_key}"
        if not folder.is_dir():
            start = time.monotonic()
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.chosen.llama)
            pool = self.pool.encoded(tokenizer)
            made = make_base(
                self.chosen.llama,
                pool,
                self.chosen.data / "text",
                folder,
                seconds=self.chosen.heal,
                tokens=self.chosen.tokens,
                device=self.device,
                documents=self.chosen.documents,
            )
            free()
            made |= {"pool_tokens": pool.tokens}
            self.note("base", made, time.monotonic() - start, self.base_key)
        return folder

    def warmed(self, arm: Arm, rows: Rows, work: Path) -> tuple[Path, dict[str, Any]]:
        """Convert the base and warm it up on rows; return the model and what the trainer said."""
        job, base = self.job(arm.seed, work), ModelRef(str(self.base))
        start = time.monotonic()
        converter = self.part(Kind.CONVERTER, "olmoe-trashcan", dict(arm.convert))
        converter.convert(base, work / "converted", job)
        facts: dict[str, Any] = {"convert_seconds": round(time.monotonic() - start, 1)}
        if arm.warmup is None:
            return work / "converted", facts
        start = time.monotonic()
        options = dict(arm.warmup) | {"epochs": arm.epochs}
        trainer = self.part(Kind.TRAINER, arm.use, options)
        said = trainer.train(ModelRef(str(work / "converted")), rows, work / "warmed", job)
        free()
        # Beside the "seconds" of training: loading, the first copies, saving.
        facts["warmup_seconds"] = round(time.monotonic() - start, 1)
        return work / "warmed", facts | dict(said)

    def scores(
        self, name: str, options: dict[str, Any], model: Path, rows: Rows, work: Path
    ) -> ShardScores:
        """Return what a scorer says of rows."""
        inputs = Inputs(model=ModelRef(str(model)))
        job = replace(self.job(0, work), inputs=inputs, encoded=rows.encoded)
        with self.part(Kind.SCORER, name, options).open(job) as scorer:
            found: ShardScores = scorer.score(Shard(0, np.arange(len(rows)), rows.examples))
        return found

    def of_sets(self, score: np.ndarray) -> Iterator[tuple[Judged, np.ndarray]]:
        """Yield each set and its part of a score of ``rows``."""
        stops = np.cumsum([len(one.examples) for one in self.judged])
        return zip(self.judged, np.split(score, stops[:-1]), strict=True)

    def note(self, name: str, line: dict[str, Any], seconds: float, key: str = "") -> None:
        """Print a result and add its line to the file at once."""
        shared = {"name": name, "key": key, "setting": self.setting, "seconds": round(seconds, 1)}
        append(self.out / RESULTS, shared | line)
        print(f"{name} ({seconds:.0f} s)", flush=True)


def base_options(parser: argparse.ArgumentParser, *, heal: float) -> None:
    """Add the options that decide the base model and the pool.

    Args:
        parser: of a benchmark's command line.
        heal: the default of ``--heal``.
    """
    add = parser.add_argument
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    add("--work", type=Path, help="where models go (OUT/work); checkpoints of 8 GB pass through it")
    add("--bases", type=Path, help="where base models go (WORK): runs side by side share one")
    add("--data", type=Path, default=data, help="by default SELECTMOE_DATA")
    add(
        "--llama", type=Path, help="folder or GGUF file of a small Llama, of which the base is made"
    )
    add("--rows", type=int, help="of the pool at most")
    add("--heal", type=float, default=heal, help="seconds of healing the base")
    add("--tokens", type=int, default=24576, help="of a step of healing")
    add("--documents", type=int, default=2500, help="of plain text for healing")
    add("--max-length", type=int, default=512, help="tokens of a row")
    add("--tiny", action="store_true", help="bundled nano model, few rows")


def shrink(chosen: argparse.Namespace) -> None:
    """Set these options for a trial in minutes on a CPU."""
    models = Registry(load_plugins()).models
    chosen.llama = chosen.llama or models.find(ModelRef("bundled:nano-llama"))
    chosen.rows, chosen.heal, chosen.tokens, chosen.documents = 160, 1.0, 1024, 4
    chosen.max_length = 128


def work_folder(chosen: argparse.Namespace) -> Path:
    """Return where models and tokens go."""
    return chosen.work or chosen.out / "work"


def digest(*parts: Any) -> str:  # noqa: ANN401
    """Return a short name for what the parts say."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def results(out: Path) -> list[dict[str, Any]]:
    """Return the lines that are there."""
    path = out / RESULTS
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:  # texts may hold line separators of Unicode
        return [json.loads(line) for line in lines]


def free() -> None:
    """Give the device's memory back: trainers hold theirs in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give an empty folder that is removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

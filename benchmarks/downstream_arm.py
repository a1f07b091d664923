"""One arm: a selection from the pool, an adapter trained on it, and what that answers.

All of it is done by selectmoe's own components, loaded as a run loads them: a selector, the LoRA
trainer, the perplexity scorer on what was held out, and the lm-eval evaluator.
"""

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from downstream_pool import HalfPool
from rows import Rows

from selectmoe_core import Example, Job, ModelRef, ScoreTable, Shard, ShardScores, TargetModel
from selectmoe_core.config import marked, parse
from selectmoe_core.data.scores import write_part
from selectmoe_core.models.models import Models
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.protocols import Inputs
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.store import FileHashes
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode
from selectmoe_core.tokens.tokenizer import Tokenizer

FORMAT = 1
"""Of the results: raise it when an arm comes to mean something else."""
BASE, RANDOM, ORACLE, LENGTH = "base", "random", "oracle", "length"
MADE_HERE = (BASE, RANDOM, ORACLE, LENGTH)


@dataclass(frozen=True)
class Arm:
    """What is selected, and the seed of the draw and of the training.

    Attributes:
        strategy: ``base`` (no training), ``random``, ``oracle``, ``length`` or a given score.
        quota: whether the fraction is kept of each source by itself.
        fraction: of the pool's rows.
        seed: of random scores and of the training.
    """

    strategy: str
    quota: bool = False
    fraction: float = 0.0
    seed: int = 0

    @property
    def label(self) -> str:
        """The strategy, with its quota."""
        return f"{self.strategy}+quota" if self.quota else self.strategy

    def __str__(self) -> str:
        return BASE if self.strategy == BASE else f"{self.label}/{self.fraction:g}/{self.seed}"


@dataclass(frozen=True)
class KeptModel(Models):
    """Loads as ``Models`` does and keeps the last model: what is tuned once is measured twice."""

    kept: dict[str, Any] = field(default_factory=dict)

    def load(self, ref: ModelRef, *, dtype: str, device: str, **options: Any) -> Any:  # noqa: ANN401
        """Return the model, the kept one where it is the same."""
        if str(ref) not in self.kept:
            found = super().load(ref, dtype=dtype, device=device, **options)
            self.kept.clear()
            self.kept[str(ref)] = found
        return self.kept[str(ref)]


@dataclass(frozen=True)
class Setting:
    """What all arms of a run share.

    Attributes:
        registry: the plugins' components.
        pool: the half-damaged pool.
        scores: for each given score, where it is for a seed.
        target: the model to tune.
        target_kind: ``instruct`` or ``base``, for the record.
        device: ``cpu`` or ``cuda``.
        chat: the chat format.
        train: options of ``llama-lora``.
        evaluate: options of ``lm-eval``; without tasks only the held-out loss is measured.
    """

    registry: Registry
    pool: HalfPool
    scores: Mapping[str, Callable[[int], Path]]
    target: ModelRef
    target_kind: str
    device: str
    chat: ChatConfig
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    _read: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def dtype(self) -> str:
        """What training computes in; what is measured is measured in float32."""
        return "bfloat16" if self.device == "cuda" else "float32"

    @cached_property
    def common(self) -> str:
        """Identifies what all arms share: only arms of one can be compared."""
        return _digest(self._common)

    @cached_property
    def _common(self) -> dict[str, Any]:
        options = {
            kind: self._options(kind, name, table)
            for kind, name, table in (
                (Kind.TRAINER, "llama-lora", self.train),
                (Kind.EVALUATOR, "lm-eval", self.evaluate),
            )
            if table.get("tasks", True)
        }
        return {
            "format": FORMAT,
            "pool": self.pool.digest,
            "target": self.registry.models.digest(self.target, FileHashes(None)),
            "target_kind": self.target_kind,
            "compute": [self.device, self.dtype],
            "chat": ChatFormat.load(self.chat).digest,
            **options,
        }

    def key(self, arm: Arm) -> str:
        """Return the digest of all that decides an arm's result."""
        settings = self._common | {"arm": vars(arm)}
        if arm.strategy != BASE:
            settings["scores"] = hashlib.sha256(self.scored(arm).tobytes()).hexdigest()
        return _digest(settings)

    def scored(self, arm: Arm) -> np.ndarray:
        """Return the arm's score of each row, float64 ``[rows]``; NaN is never selected."""
        if arm.strategy in self.scores:
            path = self.scores[arm.strategy](arm.seed)
            if path not in self._read:
                self._read[path] = self.pool.scores(path)
            return self._read[path]
        name = LENGTH if arm.strategy == LENGTH else RANDOM
        part = self.part(Kind.SCORER, name)
        with part.open(Job(seed=arm.seed)) as scorer:
            score = scorer.score(shard_of(self.pool.examples)).score
        return np.where(self.pool.clean, score, np.nan) if arm.strategy == ORACLE else score

    def selected(self, arm: Arm) -> np.ndarray:
        """Return the rows that the arm trains on, the best first."""
        score = self.scored(arm)
        options = {"fraction": arm.fraction, "per": "source" if arm.quota else "none"}
        part = self.part(Kind.SELECTOR, "top-fraction", options)
        with tempfile.TemporaryDirectory() as name:
            examples = self.pool.examples
            write_part(
                Path(name),
                0,
                pa.array([bytes.fromhex(one.id) for one in examples], pa.binary(16)),
                pa.array([one.source for one in examples]).dictionary_encode(),
                ShardScores(score, ["left out" if np.isnan(one) else None for one in score]),
            )
            rows = part.select(ScoreTable.open(Path(name)), Job(seed=arm.seed)).rows
        return np.asarray(rows)

    def part(self, kind: Kind, name: str, table: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        """Return a component, built with its options."""
        component = self.registry.get(kind, name, where="downstream").component
        return component.build(parse(component.config, table or {}, where=name))

    def _options(self, kind: Kind, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that can change a result."""
        config = self.registry.get(kind, name, where="downstream").component.config
        left_out = marked(config, "execution_only") | {
            "include_path",
            "allow_task_code",
            "task_data",
        }
        return parse(config, table, where=name).model_dump(mode="json", exclude=set(left_out))


def shard_of(examples: Sequence[Example]) -> Shard:
    """Return all examples as one shard."""
    return Shard(0, np.arange(len(examples)), examples)


def run_arm(setting: Setting, arm: Arm, work: Path) -> dict[str, Any]:
    """Select, train and measure; return what the results keep of it."""
    chat = ChatFormat.load(setting.chat)
    job = Job(
        seed=arm.seed,
        device=setting.device,
        dtype=setting.dtype,
        chat=chat,
        scratch=work / "scratch",
        checkpoints=work / "checkpoints",
        models=setting.registry.models,
        bundled_tasks=setting.registry.bundled_tasks,
    )
    line: dict[str, Any] = {"arm": vars(arm), "seconds": {}}
    model = setting.target
    if arm.strategy != BASE:
        start = time.monotonic()
        rows = setting.selected(arm)
        line |= _described(setting.pool, rows)
        chosen = Rows([setting.pool.examples[row] for row in rows], chat, work / "tokens")
        part = setting.part(Kind.TRAINER, "llama-lora", setting.train)
        line["train"] = dict(part.train(setting.target, chosen, work / "model", job))
        model = ModelRef(str(work / "model"))
        line["seconds"]["train"] = round(time.monotonic() - start, 2)
    models = KeptModel(setting.registry.models.bundled, setting.registry.models.model_types)
    job = replace(job, models=models, dtype="float32")
    start = time.monotonic()
    line["heldout"] = heldout_loss(setting, model, job, work)
    line["seconds"]["heldout"] = round(time.monotonic() - start, 2)
    start = time.monotonic()
    line["tasks"] = answered(setting, model, job, work) if setting.evaluate["tasks"] else {}
    line["seconds"]["tasks"] = round(time.monotonic() - start, 2)
    return line


def heldout_loss(setting: Setting, model: ModelRef, job: Job, work: Path) -> dict[str, Any]:
    """Return the response loss of each held-out example, in nats a token, and its tokens."""
    heldout = setting.pool.heldout

    def encoded(tokenizer: Tokenizer) -> Encoded:
        return encode(heldout, work / "heldout", job.chat, tokenizer)

    part = setting.part(Kind.SCORER, "perplexity", {"batch_tokens": 32768})
    reading = replace(job, inputs=Inputs(model=model), encoded=encoded)
    with part.open(reading) as scorer:
        details = scorer.score(shard_of(heldout)).details
    kept = details["tokens"] > 0  # a prompt that fills max_length leaves no answer to measure
    return {
        "loss": [round(float(one), 6) for one in details["loss"][kept]],
        "tokens": details["tokens"][kept].tolist(),
    }


def answered(setting: Setting, model: ModelRef, job: Job, work: Path) -> dict[str, Any]:
    """Return for each task its metric, and for each question 1 or 0 as one string."""
    out = work / "evaluate"
    part = setting.part(Kind.EVALUATOR, "lm-eval", setting.evaluate)
    facts = part.evaluate(TargetModel(model), out, job)
    found = {}
    for task, of in facts["tasks"].items():
        (path,) = out.glob(f"samples_{task}_*.jsonl")
        with path.open(encoding="utf-8") as lines:
            right = [int(json.loads(line)[of["metric"]]) for line in lines]
        if abs(np.mean(right) - of["value"]) > 1e-9:
            raise ValueError(f"{task}: the questions do not add up to {of['value']}")
        found[task] = {"metric": of["metric"], "right": "".join(map(str, right))}
    return found


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(pool: HalfPool, rows: np.ndarray) -> dict[str, Any]:
    kinds = Counter(pool.kinds[row] or "clean" for row in rows)
    sources = Counter(pool.examples[row].source for row in rows)
    return {
        "selected": len(rows),
        "clean": kinds["clean"] / len(rows),
        "kinds": dict(sorted(kinds.items())),
        "sources": dict(sorted(sources.items())),
    }

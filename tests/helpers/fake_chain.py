"""A chain without torch, for tests of the core: it is installed as a plugin of its own.

What a test wants to go wrong is said by files in the folder that ``FAKE_CHAIN`` names:
``fail-score-3`` (the scorer fails at shard 3), ``fail-train-10`` (the trainer fails at 10
examples), ``fail-evaluate``, ``fail-observer``, ``slow`` (seconds that a shard and each half of
another step takes), ``fail-error-1`` and ``fail-kill-1`` (the process of rank 1 of several, at its
second shard). Each call is a line of the file ``calls`` there.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selectmoe_core import (
    Component,
    Config,
    Cost,
    Job,
    Marks,
    Need,
    Place,
    Question,
    Shard,
    ShardScores,
    StageError,
    execution_only,
    hookimpl,
    read_questions,
)
from selectmoe_core.data import Pool, Vectors
from selectmoe_core.errors import RecipeError
from selectmoe_core.execution import FailedShard, open_shards


def control() -> Path:
    return Path(os.environ["FAKE_CHAIN"])


def note(text: str) -> None:
    with (control() / "calls").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def rest() -> None:
    """Take the time that the file ``slow`` names, so that there is a moment to be killed in.

    Where the file ``meet`` names a number, go on only once so many processes have come here.
    """
    if (control() / "meet").exists():
        (control() / f"met-{os.getpid()}").touch()
        last = time.monotonic() + 120
        while len(list(control().glob("met-*"))) < int((control() / "meet").read_text()):
            if time.monotonic() > last:
                raise RuntimeError("waited for others in vain")
            time.sleep(0.02)
    if (control() / "slow").exists():
        time.sleep(float((control() / "slow").read_text()))


def hold(name: str) -> None:
    """Wait as long as the file ``hold-NAME`` is there."""
    last = time.monotonic() + 300
    while (control() / f"hold-{name}").exists():
        if time.monotonic() > last:
            raise RuntimeError(f"held at {name} in vain")
        time.sleep(0.02)


def fail_if_told(name: str) -> None:
    if (control() / f"fail-{name}").exists():
        raise RuntimeError(f"told to fail at {name}")


class NoOptions(Config):
    """Has no options."""


class ScoreConfig(Config):
    """Score by the length of the answer times a factor."""

    factor: float = 1.0
    """What the length is multiplied by."""
    what: Literal["length", "equal", "nothing", "infinite", "skip", "short"] = "length"
    """What to give: a length, always the same, no number, or a reason to skip."""
    reads_model: bool = False
    """Read the selector model."""
    reads: str = ""
    """A field of the job to read, as ``inputs.model``, whatever is declared."""
    breaks: Literal["", "open", "score", "type", "none"] = ""
    """Where to fail, or to give something else than scores."""
    reads_tokens: bool = False
    """Read tokens: brings the chat format into the digest."""
    batch: int = execution_only(4)
    """Examples at once."""


class BlendConfig(Config):
    """Add up other scores."""

    of: tuple[str, ...]
    """The names of the scores."""


class TrainConfig(Config):
    """Pretend to train."""

    epochs: int = 1
    """Rounds."""
    batch: int = execution_only(4)
    """Examples at once."""


class EvaluateConfig(Config):
    """Count the letters of a model's path."""

    tasks: tuple[str, ...] = ("letters",)
    """The tasks."""
    answers: int = 0
    """Questions whose answers are kept: the longer the training's responses, the more are right."""
    right: float = 0.4
    """The share of right answers of a model without training."""
    gain: float = 0.008
    """What each letter of a training's responses adds to it."""
    warnings: tuple[str, ...] = ()
    """What every evaluation warns of."""
    warns_tuned: tuple[str, ...] = ()
    """What the evaluation of a trained model warns of."""
    asks: tuple[str, ...] = ()
    """The questions; by default one for each task."""
    resamplings: int = 10
    """Changes no question."""
    web: tuple[str, ...] = ()
    """Addresses of data that no digest covers."""


class FilterConfig(Config):
    """Leave out what it is told to."""

    answer: str = ""
    """Leave out the examples whose answer holds this."""
    alike: int = 0
    """Put the first so many examples into one group."""
    outside: bool = False
    """Mark a row that is not there."""
    questions: bool = False
    """Read the questions of the evaluation, and leave out what asks one of them."""


class FakeFilter:
    def __init__(self, config: FilterConfig) -> None:
        self.config = config

    def mark(self, pool: Any, job: Job) -> Marks:
        note("filter")
        config = self.config
        wanted = [config.answer] if config.answer else []
        if config.questions:
            wanted = [question.text for question in read_questions(job.inputs.questions)]
        rows = [
            row
            for row, example in enumerate(pool.examples())
            if any(text in example.response or text in example.prompt for text in wanted)
        ]
        if config.alike:
            return Marks.grouped(np.arange(config.alike), np.zeros(config.alike))
        if config.outside:
            rows = [len(pool)]
        return Marks.left_out(np.array(rows, dtype=np.int64), ["it is unwanted"] * len(rows))


class FakeConverter:
    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def convert(self, model: Any, out: Path, job: Job) -> Mapping[str, Any]:
        note("convert")
        out.mkdir(parents=True, exist_ok=True)
        rest()
        (out / "config.json").write_text(json.dumps({"model_type": "fake", "seed": job.seed}))
        (out / "model.safetensors").write_bytes(b"weights")
        return {"tensors": 1}

    def verify(self, converted: Path, original: Any, how: Any, job: Job) -> Mapping[str, Any]:
        return {}


class ChildConverter(FakeConverter):
    """Runs in a process of its own, alone: a second one would write into the same folder."""

    def convert(self, model: Any, out: Path, job: Job) -> Mapping[str, Any]:
        out.mkdir(parents=True)
        time.sleep(0.5)
        note(f"alone {job.world.size == 1}")
        return super().convert(model, out, job)


class FakeTrainer:
    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def train(self, model: Any, examples: Any, out: Path, job: Job) -> Mapping[str, Any]:
        note(f"train {len(examples)}")
        fail_if_told(f"train-{len(examples)}")
        out.mkdir(parents=True, exist_ok=True)
        rest()
        (out / "config.json").write_text('{"model_type": "fake"}')
        (out / "model.safetensors").write_bytes(b"weights")
        (out / "rows").write_text("\n".join(example.id for example in examples))
        length = np.mean([len(example.response) for example in examples])
        (out / "training.json").write_text(json.dumps({"length": length, "seed": job.seed}))
        rest()
        job.metrics(1, {"loss": 2.0})
        job.metrics(2, {"loss": 1.0})
        return {"steps": 2, "loss": 1.0}


class FakeScorer:
    def __init__(self, config: ScoreConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["FakeScorer"]:
        if self.config.reads:
            attrgetter(self.config.reads)(job)
        if self.config.breaks == "open":
            raise ValueError("cannot open")
        yield self

    def score(self, shard: Shard) -> ShardScores:
        note(f"score {shard.number}")
        fail_if_told(f"score-{shard.number}")
        hold(f"score-{shard.number}")
        rest()
        if self.config.breaks == "score" and shard.number == 2:
            return self.config.nothing_like_this
        if self.config.breaks in ("type", "none"):
            return None if self.config.breaks == "none" else np.zeros(3)
        lengths = np.array([len(one.response) for one in shard.examples], dtype=float)
        values = lengths * self.config.factor
        reasons = None
        match self.config.what:
            case "equal":
                values[:] = 1.0
            case "nothing":
                values[0] = np.nan
            case "infinite":
                values[0] = np.inf
            case "short":
                values = values[:-1]
            case "skip":
                values[:] = np.nan
                reasons = ["no tokens"] * len(values)
        return ShardScores(values, reasons)


class ChildScorer(FakeScorer):
    """Runs in a process of its own, and comes to every kind of end there."""

    def check(self, job: Job) -> None:
        note(f"check {os.getpid()}")
        if (control() / "fail-check").exists():
            raise RecipeError("the check says no", hint="listen to it")

    def score(self, shard: Shard) -> ShardScores:
        note(f"pid {os.getpid()} threads {os.environ.get('OMP_NUM_THREADS')}")
        if (control() / "fail-error").exists():
            raise StageError("the child says no", hint="ask again")
        if (control() / "fail-disk").exists():
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        if (control() / "fail-memory").exists():
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB. Process 7 has 78 GiB.")
        if (control() / "fail-kill").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (control() / "fail-interrupt").exists():
            raise KeyboardInterrupt
        scores = super().score(shard)
        self.shards = getattr(self, "shards", 0) + 1
        self.end_one_of_many(os.environ.get("RANK", ""))
        return scores

    def end_one_of_many(self, rank: str) -> None:
        """Come to an end at the second shard, where this is told to the process of this rank.

        Shards are written behind: it first waits for one below the folder that the file names.
        """
        for name in ("error", "kill"):
            told = control() / f"fail-{name}-{rank}"
            if self.shards < 2 or not told.exists():
                continue
            while not list(Path(told.read_text()).rglob("part-*.parquet")):
                time.sleep(0.05)
            if name == "error":
                raise StageError(f"process {rank} says no", hint="ask again")
            os.kill(os.getpid(), signal.SIGKILL)


class EmbedConfig(Config):
    """Make vectors of the letters of an answer."""

    what: Literal["letters", "equal", "zeros", "infinite", "short", "list"] = "letters"
    """What to give: counts of letters, or something that is refused."""
    reads_checkpoints: bool = False
    """Read the warm-up's checkpoints."""
    batch: int = execution_only(4)
    """Examples at once."""


class FakeEmbedder:
    def __init__(self, config: EmbedConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job, role: str) -> Iterator["FakeEmbedder"]:
        note(f"embed {role}")
        if self.config.reads_checkpoints:
            note(f"checkpoints {sorted(path.name for path in job.inputs.checkpoints.iterdir())}")
        yield self

    def embed(self, shard: Shard) -> np.ndarray:
        note(f"embed {shard.number}")
        fail_if_told(f"embed-{shard.number}")
        rest()
        made = np.array([letters(one.response) for one in shard.examples])
        match self.config.what:
            case "equal":
                made[:] = 1.0
            case "zeros":
                made[:] = 0.0
            case "infinite":
                made[-1, 0] = 1e6
            case "short":
                made = made[:-1]
            case "list":
                return made.tolist()
        return made


def letters(text: str) -> list[float]:
    """The counts of some characters of a text, and its length."""
    return [float(text.count(letter)) for letter in "Aer.0123456789"] + [float(len(text))]


class NearConfig(Config):
    """Score by the likeness to targets."""

    targets: bool = True
    """Whether to read the targets."""


class FakeNear:
    """The largest product with a target; without targets, the length of the vector."""

    def __init__(self, config: NearConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, job: Job) -> Iterator["FakeNear"]:
        self.vectors = Vectors(job.inputs.vectors)
        self.targets = np.eye(self.vectors.width)
        if self.config.targets:
            note(f"tasks {sorted(Pool.open(job.inputs.targets).sources)}")
            targets = Vectors(job.inputs.target_vectors)
            self.targets = targets.take(range(len(targets))).astype(float)
        yield self

    def score(self, shard: Shard) -> ShardScores:
        return ShardScores((self.vectors.take(shard.rows).astype(float) @ self.targets.T).max(1))


class FakeBlend:
    def __init__(self, config: BlendConfig) -> None:
        self.config = config

    def combine(self, tables: Mapping[str, Any], job: Job) -> ShardScores:
        note("blend")
        return ShardScores(np.sum([tables[name].score() for name in self.config.of], axis=0))


class FakeEvaluator:
    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config

    def questions(self, job: Job) -> Iterator[Question]:
        note("questions")
        for text in self.config.asks:
            yield Question(self.config.tasks[0], text)
        for number, name in enumerate(self.config.tasks if not self.config.asks else ()):
            yield Question(name, f"Question {number}")

    def evaluate(self, model: Any, out: Path, job: Job) -> Mapping[str, Any]:
        note(f"evaluate {'tuned' if model.adapter else 'base'}")
        rest()
        fail_if_told("evaluate")
        if self.config.answers:
            warned = [*self.config.warnings, *(self.config.warns_tuned if model.adapter else ())]
            tasks = {name: self.answered(name, model, out) for name in self.config.tasks}
            return {"tasks": tasks, **({"warnings": warned} if warned else {})}
        value = 0.5 + 0.001 * (len((model.adapter / "rows").read_text()) if model.adapter else 0)
        task = {"metric": "acc", "value": min(value, 1.0), "stderr": 0.01, "questions": 10}
        return {"tasks": {name: {**task, "chance": 0.25} for name in self.config.tasks}}

    def answered(self, task: str, model: Any, out: Path) -> dict[str, Any]:
        """Answer questions, keep the answers as lm-eval does, and return the facts."""
        told = json.loads((model.adapter / "training.json").read_text()) if model.adapter else {}
        text = f"{task} {told} {(model.adapter / 'rows').read_text() if model.adapter else ''}"
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        right = rng.random(self.config.answers) < self.config.right + self.config.gain * told.get(
            "length", 0
        )
        out.mkdir(parents=True, exist_ok=True)
        with (out / f"samples_{task}.jsonl").open("w") as file:
            for number, one in enumerate(right):
                row = {"doc_id": number, "doc_hash": f"{task}{number}", "acc": float(one)}
                file.write(json.dumps(row) + "\n")
        value = float(right.mean())
        stderr = float(right.std() / len(right) ** 0.5)
        known = {"metric": "acc", "chance": 0.25, "questions": len(right)}
        return {**known, "value": value, "stderr": stderr}


def _score_needs(config: ScoreConfig) -> frozenset[Need]:
    needs = {Need.POOL}
    if config.reads_model:
        needs.add(Need.MODEL)
    if config.reads_tokens:
        needs.add(Need.TOKENS)
    return frozenset(needs)


def _near_needs(config: NearConfig) -> frozenset[Need]:
    return frozenset({Need.FEATURES, Need.TARGETS} if config.targets else {Need.FEATURES})


TRAINER = Component(
    "fake-train",
    TrainConfig,
    FakeTrainer,
    needs=lambda _: frozenset({Need.MODEL, Need.POOL, Need.TOKENS}),
    seeded=True,
    cost=lambda config, work: Cost(tokens=work.tokens * config.epochs, flops=1e9 * work.examples),
)


@hookimpl
def selectmoe_model_types() -> Mapping[str, Any]:
    return {"fake": _register}


def _register() -> None:
    from transformers import AutoConfig, PretrainedConfig

    class FakeConfig(PretrainedConfig):
        model_type = "fake"

    AutoConfig.register("fake", FakeConfig, exist_ok=True)


@hookimpl
def selectmoe_converters() -> list[Any]:
    needs = frozenset({Need.MODEL})
    common = {"needs": lambda _: needs, "seeded": True}
    return [
        Component("fake-convert", NoOptions, FakeConverter, **common),
        Component("fake-child-convert", NoOptions, ChildConverter, torch=True, **common),
        Component("fake-slow-convert", NoOptions, FakeConverter, torch=True, seeded=True),
    ]


@hookimpl
def selectmoe_trainers() -> list[Any]:
    alone = replace(
        TRAINER,
        name="fake-alone-train",
        torch=True,
        one_process=True,
        needs=lambda _: frozenset({Need.MODEL, Need.POOL}),  # the fake model has no tokenizer
    )
    # Needs no model, so that transformers, which takes seconds to import, has none to check.
    slow = replace(alone, name="fake-slow-train", needs=lambda _: frozenset({Need.POOL}))
    return [TRAINER, alone, slow]


@hookimpl
def selectmoe_scorers() -> list[Any]:
    return [
        Component("fake-score", ScoreConfig, FakeScorer, needs=_score_needs),
        Component("fake-child", ScoreConfig, ChildScorer, needs=_score_needs, torch=True),
        Component("fake-near", NearConfig, FakeNear, needs=_near_needs),
        Component(
            "fake-blend",
            BlendConfig,
            FakeBlend,
            needs=lambda _: frozenset({Need.SCORES, Need.POOL}),
            scores=lambda config: config.of,
        ),
    ]


@hookimpl
def selectmoe_embedders() -> list[Any]:
    def needs(config: EmbedConfig) -> frozenset[Need]:
        return frozenset({Need.POOL, Need.CHECKPOINTS} if config.reads_checkpoints else {Need.POOL})

    return [
        Component("fake-embed", EmbedConfig, FakeEmbedder, needs=needs),
        Component("fake-child-embed", EmbedConfig, FakeEmbedder, needs=needs, torch=True),
    ]


@hookimpl
def selectmoe_evaluators() -> list[Any]:
    return [
        Component(
            "fake-eval",
            EvaluateConfig,
            FakeEvaluator,
            unseen=lambda config: config.web,
            questions=lambda config: EvaluateConfig(tasks=config.tasks, asks=config.asks),
        ),
        Component("fake-silent-eval", EvaluateConfig, FakeEvaluator),
        Component(
            "fake-child-eval",
            EvaluateConfig,
            FakeEvaluator,
            questions=lambda config: EvaluateConfig(tasks=config.tasks, asks=config.asks),
            torch=True,
        ),
    ]


class TrackerConfig(Config):
    """Note what a run reports."""

    color: Literal["red", "blue"] = "red"
    """Changes nothing."""


class FakeTracker:
    def __init__(self, config: TrackerConfig) -> None:
        self.config = config

    def start(self, run: Any) -> None:
        fail_if_told("tracker")
        note(f"tracker start {run.name} {run.options['select.fraction']} {self.config.color}")

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        note(f"tracker log {name} {step} {' '.join(values)}")
        fail_if_told("tracker-log")

    def end(self, result: Any) -> None:
        values = " ".join(f"{name}={value:.2f}" for name, value in sorted(result.values.items()))
        files = " ".join(path.name for path in result.files)
        note(f"tracker end [{result.error}] {len(result.verdict)} [{values}] [{files}]")


@hookimpl
def selectmoe_trackers() -> list[Any]:
    missing = ("nowhere_at_all:nowhere",)
    return [
        Component("fake-tracker", TrackerConfig, FakeTracker),
        Component("fake-missing", TrackerConfig, FakeTracker, requires=missing),
    ]


class ExecutorConfig(Config):
    """Make shards in the process that drives them, and note what is asked."""

    attempts: int = 2
    """How often a shard is tried."""
    skip_failed_shards: bool = False
    """Go on without the examples of a shard that fails."""
    processes: int = 1
    """Processes of a gang."""


class FakeExecutor:
    def __init__(self, config: ExecutorConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, site: Any) -> Iterator["FakeExecutor"]:
        note(f"executor open {site.device} {site.threads}")
        fail_if_told("executor")
        yield self
        note("executor close")

    def place(self) -> Place:
        return Place("cpu", self.config.processes, 1, "inside")

    def map(self, run: Any) -> None:
        note(f"map {run.key}")
        options = {"attempts": self.config.attempts}
        run.drive(f"{__name__}:fake_maker", options, self.config.skip_failed_shards)

    def gang(self, run: Any) -> None:
        note(f"gang {run.key} {run.processes}")
        done = subprocess.run([sys.executable, "-m", *run.program], check=False)
        run.ended({0: done.returncode})


@contextmanager
def fake_maker(work: Any, options: Mapping[str, Any]) -> Iterator["FakeMaker"]:
    with open_shards(work.file) as shards:
        yield FakeMaker(shards, options["attempts"])


class FakeMaker:
    def __init__(self, shards: Any, attempts: int) -> None:
        self.shards = shards
        self.attempts = attempts

    def make(self, todo: Any, made: Any) -> list[FailedShard]:
        failed = []
        for cut in reversed(todo):
            for tries in range(1, self.attempts + 1):
                try:
                    made(cut[0], self.shards.make(cut))
                    break
                except Exception as error:
                    if tries == self.attempts:
                        failed.append(FailedShard(cut, tries, str(error)))
        return failed

    def finish(self) -> None:
        note("executor finish")
        self.shards.finish()


@hookimpl
def selectmoe_executors() -> list[Any]:
    return [Component("fake-executor", ExecutorConfig, FakeExecutor)]


@hookimpl
def selectmoe_filters() -> list[Any]:
    def needs(config: FilterConfig) -> frozenset[Need]:
        return frozenset({Need.POOL, Need.QUESTIONS} if config.questions else {Need.POOL})

    return [Component("fake-filter", FilterConfig, FakeFilter, needs=needs)]


@hookimpl
def selectmoe_run_failed(run: Path, error: str) -> None:
    note(f"run failed {(run / 'run.log').is_file()} {error}")


@hookimpl
def selectmoe_stage_finished(artifact: Any) -> None:
    note(f"finished {artifact.stage}")
    fail_if_told("observer")


@hookimpl
def selectmoe_metrics(node: str, stage: str, step: int, values: Mapping[str, float]) -> None:
    note(f"metrics {stage} {step}")
    if (control() / "observed").exists():
        note(f"observed {node} {os.getpid()} {values['loss']}")
    fail_if_told("observer")


@hookimpl
def selectmoe_run_started(run: Path) -> None:
    note("run started")


@hookimpl
def selectmoe_run_finished(run: Path) -> None:
    note(f"run finished {(run / 'report.html').is_file()}")

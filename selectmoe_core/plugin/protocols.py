"""The methods of parts: any class with these methods is accepted, without a base class."""

# Only for types: reading a recipe must not import numpy or arrow.
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from selectmoe_core.errors import PluginError
from selectmoe_core.models.models import Models
from selectmoe_core.runtime.distributed import World
from selectmoe_core.runtime.progress import NoProgress, Progress

if TYPE_CHECKING:
    import numpy as np

    from selectmoe_core.data.corruption import Damage
    from selectmoe_core.data.examples import Example, RawExample, Reject
    from selectmoe_core.data.marks import Marks
    from selectmoe_core.data.pool import Pool
    from selectmoe_core.data.scores import ScoreTable, ShardScores
    from selectmoe_core.data.selection import Selection
    from selectmoe_core.models.models import ModelRef, TargetModel
    from selectmoe_core.store import Facts
    from selectmoe_core.tokens.chat import ChatFormat
    from selectmoe_core.tokens.encoding import Encoded
    from selectmoe_core.tokens.tokenizer import Tokenizer


class Need(StrEnum):
    """What a component reads besides its options; only declared needs enter its digest."""

    MODEL = "model"
    """The table's ``model``, or the Select-MoE model of warm-up or conversion."""
    POOL = "pool"
    """The pool's folder; parts that work on shards or rows receive these without it."""
    TOKENS = "tokens"
    """Token ids under the model's tokenizer: ``Job.encoded`` and ``Job.chat``."""
    TARGETS = "targets"
    """The examples of ``[targets]``, each source a target task: ``Job.inputs.targets``."""
    FEATURES = "features"
    """The vectors of ``[embed]``: ``Job.inputs.vectors``, and ``Job.inputs.target_vectors`` for a
    component that also needs ``TARGETS``."""
    CHECKPOINTS = "checkpoints"
    """The checkpoints that the warm-up left: ``Job.inputs.checkpoints``."""
    MOMENTS = "moments"
    """Adam's moments in these checkpoints, besides ``CHECKPOINTS``."""
    QUESTIONS = "questions"
    """The questions that the recipe's evaluation asks: ``Job.inputs.questions``."""
    SCORES = "scores"
    """Finished tables of other scores, by name."""
    DAMAGES = "damages"
    """The kinds of damage that plugins offer: ``Job.damages``."""
    PAIRS = "pairs"
    """The preference pairs of ``[warmup.pairs]``: ``Job.inputs.pairs``, ``None`` without them."""
    TASKS = "tasks"
    """Evaluation tasks that plugins ship and that options name: ``Job.bundled_tasks``."""


@dataclass(frozen=True)
class Withheld:
    """Replaces a field of a job that its component does not declare: reading it raises."""

    what: str
    hint: str

    def refuse(self) -> NoReturn:
        """Raise the ``PluginError``."""
        raise PluginError(self.what, hint=self.hint)


class _Strict:
    """Raises if a withheld field is read."""

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> object:
            value = object.__getattribute__(self, name)
            if isinstance(value, Withheld):
                value.refuse()
            return value


@dataclass(frozen=True)
class Inputs(_Strict):
    """The artifacts that a part needs; ``None`` if there is none, or none yet.

    Attributes:
        model: the model.
        pool: the folder of the pool; open it with ``Pool.open``.
        scores: folders of finished scores by name; open them with ``ScoreTable.open``.
        questions: the folder of the evaluation's questions, for ``read_questions``.
        targets: the folder of the target examples, a pool whose sources are the target tasks.
        vectors: the folder of the pool's vectors; open it with ``Vectors``.
        target_vectors: the folder of the targets' vectors.
        checkpoints: the folder with the checkpoints of the warm-up.
        pairs: the folder of the example pairs; open it with ``PairTable``.
    """

    model: ModelRef | None = None
    pool: Path | None = None
    scores: Mapping[str, Path] = field(default_factory=dict)
    questions: Path | None = None
    targets: Path | None = None
    vectors: Path | None = None
    target_vectors: Path | None = None
    checkpoints: Path | None = None
    pairs: Path | None = None


def _no_metrics(step: int, values: Mapping[str, float]) -> None:
    """Accept metrics and do nothing."""


def _no_encoding(tokenizer: Tokenizer) -> Encoded:  # noqa: ARG001
    raise TypeError("this job was made without tokens")


@dataclass(frozen=True)
class Job(_Strict):
    """Everything that a part knows about its run.

    A run fills in what the component declares; reading anything else raises a ``PluginError``.

    Attributes:
        seed: the stage's seed, for a component that is ``seeded``.
        device: ``cpu``, ``cuda`` or ``cuda:N``: this process's device.
        dtype: ``float32``, ``bfloat16`` or ``float16``: what the stage should compute in.
        world: the number of this process, and how many processes work together.
        chat: the chat format of the whole recipe (``Need.TOKENS``).
        inputs: the artifacts that the component declared.
        scratch: a folder for temporary files of the stage; a resumed stage finds them again.
        checkpoints: the folder for a trainer's checkpoints; kept when the stage is done.
        models: loads any model by its reference (``Need.MODEL``).
        bundled_tasks: folders of evaluation tasks that plugins ship, by name (``Need.TASKS``).
        damages: kinds of damage that plugins offer, by name (``Need.DAMAGES``).
        progress: shows the progress of long work.
        metrics: ``metrics(step, values)`` records numbers of a training curve; observers see them.
        encoded: the tokens of the whole pool for a tokenizer (``Need.TOKENS``); made once and kept
            as an artifact.
    """

    seed: int
    device: str = "cpu"
    dtype: str = "float32"
    world: World = field(default_factory=World)
    chat: ChatFormat = field(default_factory=lambda: _default_chat())  # noqa: PLW0108
    inputs: Inputs = field(default_factory=Inputs)
    scratch: Path = Path("scratch")
    checkpoints: Path = Path("checkpoints")
    models: Models = field(default_factory=Models)
    bundled_tasks: Mapping[str, Path] = field(default_factory=dict)
    damages: Mapping[str, Damage] = field(default_factory=dict)
    progress: Progress = field(default_factory=NoProgress)
    metrics: Callable[[int, Mapping[str, float]], None] = _no_metrics
    encoded: Callable[[Tokenizer], Encoded] = _no_encoding

    def changed(self, **changes: Any) -> Job:  # noqa: ANN401
        """Return a copy with other values in some fields; withheld fields stay withheld."""
        return Job(**{**vars(self), **changes})


def _default_chat() -> ChatFormat:
    from selectmoe_core.tokens.chat import ChatConfig, ChatFormat

    return ChatFormat(ChatConfig())


class ExampleSource(Protocol):
    """The examples for a trainer: a sample of the pool, or the selection."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Example]: ...
    def encoded(self, tokenizer: Tokenizer) -> Encoded:
        """Return their tokens and masks, in the same order."""
        ...


@dataclass(frozen=True)
class Shard:
    """A part of the pool that is scored and written together.

    Attributes:
        number: its number in the pool, from 0.
        rows: positions of the examples in the pool, int64 ``[examples]``; index ``Job.encoded``
            by them.
        examples: the examples themselves.
    """

    number: int
    rows: np.ndarray
    examples: Sequence[Example]


@dataclass(frozen=True)
class VerifyOptions:
    """How a converted model is compared with its original.

    Attributes:
        tolerance: the largest absolute difference of a tensor that still counts as equal.
        dtype: dtype of the logits comparison.
        device: where the logits are computed.
        logits: whether logits are compared at all (needs the memory for both models in turn).
    """

    tolerance: float = 0.0
    dtype: str = "float32"
    device: str = "cpu"
    logits: bool = True


class Reader(Protocol):
    """Reads a pool."""

    def read(self, job: Job) -> Iterator[RawExample | Reject]:
        """Yield every row as an example or as a reject with its reason."""
        ...


class Converter(Protocol):
    """Turns a pretrained model into a Select-MoE model."""

    def convert(self, model: ModelRef, out: Path, job: Job) -> Facts:
        """Write the checkpoint and ``selector.json`` into ``out``."""
        ...

    def verify(self, converted: Path, original: ModelRef, how: VerifyOptions, job: Job) -> Facts:
        """Compare the two models; raise a ``StageError`` that names what differs."""
        ...


Role = Literal["pool", "target"]
"""Whose vectors an embedder makes: those of the pool, or of the targets."""


class ShardEmbedder(Protocol):
    """Embeds one shard after another, with what was loaded once."""

    def embed(self, shard: Shard) -> np.ndarray:
        """Return a vector for each example, ``[examples, width]``, in order.

        They are stored as float16. Zeros say that there is nothing to see in an example. Readers
        normalise: the length of a vector has no meaning, but blocks of it may have weights.
        """
        ...


class Embedder(Protocol):
    """Turns examples into vectors, once for the pool and once for the targets."""

    def open(self, job: Job, role: Role) -> AbstractContextManager[ShardEmbedder]:
        """Load once what all shards need; shards are of the pool, or of the targets."""
        ...


class ShardScorer(Protocol):
    """Scores one shard after another, with what was loaded once."""

    def score(self, shard: Shard) -> ShardScores:
        """Return a score for each example, in order; higher is always better."""
        ...


class Scorer(Protocol):
    """Gives every example a number."""

    def open(self, job: Job) -> AbstractContextManager[ShardScorer]:
        """Load once what all shards need."""
        ...


class TableScorer(Protocol):
    """Computes a score from finished score tables, such as a blend."""

    def combine(self, tables: Mapping[str, ScoreTable], job: Job) -> ShardScores:
        """Return one score for each row of the tables, which are in pool order."""
        ...


class Filter(Protocol):
    """Finds rows that should not be selected, whatever their score."""

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the rows to leave out, and the groups of which the best-scored row alone stays."""
        ...


class Selector(Protocol):
    """Decides from the scores which examples to keep."""

    def select(self, scores: ScoreTable, job: Job) -> Selection:
        """Return the rows to keep, the best first."""
        ...


class Trainer(Protocol):
    """Trains a model: warms up a Select-MoE model, or fine-tunes a target model."""

    def train(self, model: ModelRef, examples: ExampleSource, out: Path, job: Job) -> Facts:
        """Write the trained model into ``out``; resume from a checkpoint in ``job.checkpoints``."""
        ...


class Evaluator(Protocol):
    """Measures a model."""

    def evaluate(self, model: TargetModel, out: Path, job: Job) -> Facts:
        """Write full results into ``out`` and return ``{"task/metric": value, ...}``.

        The facts hold ``tasks``: ``{task: {"metric", "value", "stderr", "questions", "chance"}}``.
        """
        ...

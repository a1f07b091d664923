"""The methods that a part may have besides those of its protocol."""

# Only for types: reading a recipe must not import numpy or arrow.
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from selectmoe_core.plugin.executor import Executor, OpenExecutor
from selectmoe_core.plugin.protocols import (
    Converter,
    Embedder,
    Evaluator,
    Filter,
    Job,
    Reader,
    Scorer,
    Selector,
    Shard,
    ShardEmbedder,
    ShardScorer,
    TableScorer,
    Trainer,
)
from selectmoe_core.plugin.tracker import Tracker

if TYPE_CHECKING:
    import numpy as np

    from selectmoe_core.data.examples import Example, RawPair, Reject
    from selectmoe_core.data.questions import Question
    from selectmoe_core.data.scores import Finish, ScoreTable, ShardScores
    from selectmoe_core.data.shown import TokenDetail


class CheckingPart(Protocol):
    """Optional for every part."""

    def check(self, job: Job) -> None:
        """Raise an error for what cannot work, before the first stage: fast, loads no model.

        Inputs that earlier stages have not made yet are ``None``.
        """
        ...


class PairReader(Protocol):
    """Optional for a reader whose component says that it can read preference pairs."""

    def pairs(self, job: Job) -> Iterator[RawPair | Reject]:
        """Yield every row as two answers to one prompt, or as a reject with its reason."""
        ...


class AskingEvaluator(Protocol):
    """Optional for an evaluator whose component says which options decide its questions."""

    def questions(self, job: Job) -> Iterator[Question]:
        """Yield what the evaluation asks, so that filters can keep it out of the selection."""
        ...


class FinishingScorer(Protocol):
    """Optional for a scorer whose final scores depend on the whole pool."""

    def finish(self, table: ScoreTable) -> Finish:
        """Return final scores and warnings from the details of all shards; called once, at the end.

        Before that, the shards hold provisional scores.
        """
        ...


class EagerShardScorer(Protocol):
    """Optional for a shard scorer on a device that computes while the host does other work."""

    def begin(self, shard: Shard) -> Callable[[], ShardScores]:
        """Start all device work of a shard; return a function that waits for the scores.

        The core calls this instead of ``score``, begins the next shards while the device works, and
        calls the returned function once, from another thread. ``begin(shard)()`` equals
        ``score(shard)``.
        """
        ...


class ShadingShardScorer(Protocol):
    """Optional for a shard scorer that computes its score from a number for each token."""

    def tokens(self, examples: Sequence[Example]) -> Sequence[TokenDetail] | None:
        """Return the numbers of the tokens of each example, in order, for the report's shading.

        Called once, after all shards are scored, with the few dozen examples that a report shows
        of a score. ``None``: with these options there are no such numbers.
        """
        ...


class EagerShardEmbedder(Protocol):
    """Optional for a shard embedder on a device: as ``begin`` of a shard scorer."""

    def begin(self, shard: Shard) -> Callable[[], np.ndarray]:
        """Start all device work of a shard; return a function that waits for the vectors."""
        ...


_CHECKED = (Converter, Embedder, TableScorer, Filter, Selector, Trainer)
OPTIONAL: Mapping[type, tuple[type, ...]] = {
    **dict.fromkeys(_CHECKED, (CheckingPart,)),
    Reader: (CheckingPart, PairReader),
    Scorer: (CheckingPart, FinishingScorer),
    ShardScorer: (EagerShardScorer, ShadingShardScorer),
    ShardEmbedder: (EagerShardEmbedder,),
    Evaluator: (CheckingPart, AskingEvaluator),
    Tracker: (),
    Executor: (),
    OpenExecutor: (),
}
"""All optional methods of parts; the conformance kit checks those that a part has."""

"""Options of the scorers ``similarity`` and ``bm25``."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from selectmoe_core import Config, execution_only


class TargetedConfig(Config):
    """Score an example by its similarity to the examples of each target task."""

    per_task: Literal["ranks", "max", "mean"] = "ranks"
    """What a row gets for a task. ``ranks``: the task's examples take turns, each takes the most
    similar row that is left, and a row scores by how early it was taken (RDS+); ``max``: the
    similarity of the closest example; ``mean``: the mean similarity (LESS)."""
    depth: float = Field(default=0.25, gt=0, le=1)
    """With ``ranks``: the share of the pool that is taken in turns; the other rows follow by their
    largest similarity. Select less than this share."""
    block_rows: PositiveInt = execution_only(8192)
    """Rows of the pool that are compared with all targets at once."""


class SimilarityConfig(TargetedConfig):
    """Score an example by the cosine of its vector with those of each target task.

    The vectors are those of ``[embed]``. The score of several tasks is the largest of ``max`` and
    ``mean``; with ``ranks`` the tasks take turns. Each task's own scores are kept as ``task:NAME``.
    """


class Bm25Config(TargetedConfig):
    """Score an example by the words it shares with each target task (BM25), without a model.

    Each target example is a query; its scores are divided by the largest that it gives. Tasks are
    combined as by ``similarity``.
    """

    text: Literal["prompt", "response", "all"] = "all"
    """Which text of pool and targets to compare: all turns, those before the last answer, or the
    answers."""
    k1: NonNegativeFloat = 1.5
    """How much a word counts that comes often in an example."""
    b: float = Field(default=0.75, ge=0, le=1)
    """How much long examples are discounted."""

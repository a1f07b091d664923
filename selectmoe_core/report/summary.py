"""The content of the report as plain values, for pages, pictures and ``report.json``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from selectmoe_core.report.findings import (
    Agreement,
    ExpertLoad,
    Headline,
    HeatMap,
    Languages,
    Lengths,
    SelectionDifference,
    ShownExample,
)
from selectmoe_core.report.record import RunRecord


@dataclass(frozen=True)
class PoolSource:
    """One source of the pool; token counts are ``None`` if no stage counted tokens."""

    name: str
    examples: int
    rejected: int
    duplicates: int
    turns: float
    tokens: float | None = None
    cut: int | None = None
    empty: int | None = None


@dataclass(frozen=True)
class RejectedRow:
    """A row that could not be used."""

    source: str
    where: str
    reason: str


@dataclass(frozen=True)
class PoolSummary:
    """The composition of the pool.

    Attributes:
        examples: number of rows, each once.
        sources: the largest first.
        rejected: total number of rejected rows.
        duplicates: number of rows left out because they repeat an earlier one.
        reasons: how often each reason occurred, the most frequent first.
        rejects: the first rejected rows.
        tokenizer: what the token figures were counted with.
    """

    examples: int
    sources: tuple[PoolSource, ...]
    rejected: int
    duplicates: int
    reasons: tuple[tuple[str, int], ...]
    rejects: tuple[RejectedRow, ...]
    tokenizer: str | None


@dataclass(frozen=True)
class SourceScores:
    """Scores of one source; quantiles are exact, NaN if nothing was scored."""

    name: str
    scored: int
    skipped: int
    mean: float
    std: float
    minimum: float
    low: float
    """The 5 % quantile."""
    first: float
    median: float
    third: float
    high: float
    """The 95 % quantile."""
    maximum: float


@dataclass(frozen=True)
class LengthCorrelation:
    """Spearman's rank correlation of score and length, on ``rows`` sampled examples.

    NaN where all lengths, or all scores, are equal.
    """

    text: float
    answer: float
    rows: int
    of: int

    @property
    def strong(self) -> bool:
        """Whether the score may measure little more than length."""
        return any(abs(value) > STRONG_CORRELATION for value in (self.text, self.answer))


STRONG_CORRELATION = 0.6


@dataclass(frozen=True)
class Histograms:
    """Counts per source over common bins; scores outside the bins are counted separately.

    Attributes:
        edges: float ``[bins + 1]``.
        pool: int ``[sources, bins]``.
        kept: int ``[sources, bins]``: those of them that were selected.
        outside: scored examples outside the edges.
    """

    edges: np.ndarray
    pool: np.ndarray
    kept: np.ndarray
    outside: int


@dataclass(frozen=True)
class AuditSummary:
    """The findings of an audit about a score."""

    level: str
    """``yes``, ``partly`` or ``no``: whether the score can be trusted on this pool."""
    verdict: tuple[str, ...]
    """Sentences; the first one is the short answer."""
    table: tuple[tuple[str, ...], ...]
    """The figures as text, together with those of length alone; the head first."""


@dataclass(frozen=True)
class ScoreSummary:
    """One finished score; ``shown`` is filled for the score that was used to select."""

    key: str
    component: str
    examples: int
    scored: int
    mean: float
    std: float
    minimum: float
    maximum: float
    sources: tuple[SourceScores, ...]
    skipped: tuple[tuple[str, str, int], ...]
    """Source, reason and how many."""
    length: LengthCorrelation | None
    shown: tuple[ShownExample, ...] = ()
    histograms: Histograms | None = field(default=None, repr=False)
    audit: AuditSummary | None = None
    warnings: tuple[str, ...] = ()
    """Warnings of the scorer about its scores on this pool."""
    heat_maps: tuple[HeatMap, ...] = ()


@dataclass(frozen=True)
class Share:
    """How much of a group of the pool (a source or a label) was selected."""

    name: str
    pool: int
    kept: int
    pool_share: float
    kept_share: float
    baseline_share: float | None = None
    """Its share of the random arm's selection."""

    @property
    def factor(self) -> float:
        """Its share of the selection divided by its share of the pool."""
        return self.kept_share / self.pool_share if self.pool_share else float("nan")


@dataclass(frozen=True)
class SelectionSummary:
    """What was selected, compared with the pool."""

    arm: str
    component: str
    kept: int
    of: int
    sources: tuple[Share, ...]
    labels: tuple[Share, ...] = ()
    left_out: tuple[tuple[str, str, int], ...] = ()
    """Source, filter with its reason, and how many rows it left out, the most first."""
    warnings: tuple[str, ...] = ()
    """What the selector itself says about its choice."""
    first_left_out: tuple[tuple[str, str, str], ...] = ()
    """Place, source and reason of the first rows that each filter left out."""


@dataclass(frozen=True)
class Curve:
    """One metric of a training run: ``steps`` and ``values``, both ``[points]``."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class TrainingSummary:
    """The log of one training, metric by metric."""

    key: str
    stage: str
    component: str
    arms: tuple[str, ...]
    steps: int
    first_loss: float | None
    last_loss: float | None
    curves: Mapping[str, Curve] = field(repr=False)
    unweighted: tuple[str, ...] = ()
    """Losses that are logged, but whose weight is 0."""
    load: ExpertLoad | None = None
    """How a router shared its slots before and after, where that was measured."""


@dataclass(frozen=True)
class Result:
    """One arm's result on one task."""

    arm: str
    value: float
    stderr: float | None
    questions: int | None
    at_chance: bool


@dataclass(frozen=True)
class Difference:
    """The recipe's own arm minus a baseline on one task, and the verdict."""

    baseline: str
    value: float
    stderr: float | None
    paired: bool
    verdict: str


@dataclass(frozen=True)
class TaskRow:
    """One task in every arm."""

    task: str
    metric: str
    chance: float | None
    questions: int | None
    higher_is_better: bool
    results: Mapping[str, Result]
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class EvaluationSummary:
    """All tasks in all arms."""

    arms: tuple[str, ...]
    tasks: tuple[TaskRow, ...]

    @property
    def baselines(self) -> tuple[str, ...]:
        """The arms that the recipe's own was compared with, in column order."""
        return tuple(dict.fromkeys(d.baseline for row in self.tasks for d in row.differences))


@dataclass(frozen=True)
class Summary:
    """The whole report; a section whose stage did not run is ``None`` or empty."""

    record: RunRecord
    headline: Headline = field(default_factory=Headline)
    own: str = "selected"
    """The arm that the report is about: the recipe's own."""
    pool: PoolSummary | None = None
    scores: tuple[ScoreSummary, ...] = ()
    selection: SelectionSummary | None = None
    training: tuple[TrainingSummary, ...] = ()
    evaluation: EvaluationSummary | None = None
    lengths: Lengths | None = None
    languages: Languages | None = None
    agreements: tuple[Agreement, ...] = ()
    differences: tuple[SelectionDifference, ...] = ()
    """The own selection beside others: the random arm's, or that of another run."""
    notes: tuple[str, ...] = ()
    """What could not be shown, and the reason."""

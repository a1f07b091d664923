"""The findings of an audit about one score."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selectmoe_core.audit.measures import (
    Auroc,
    Precision,
    Shift,
    auroc,
    precision,
    shifts,
)
from selectmoe_core.audit.planting import FITS
from selectmoe_core.data.pool import Pool
from selectmoe_core.report.distribution import lengths, spearman

CLEAN = ""
"""The label of a row that was not changed."""


@dataclass(frozen=True)
class Sample:
    """The rows of an audit's pool, in its order.

    Attributes:
        labels: the kind of damage of each row, ``""`` for none, str ``[rows]``.
        answer: characters of the answers, float64 ``[rows]``.
        conversation: characters of all turns, float64 ``[rows]``.
        codes: the source of each row as a position in ``sources``, int ``[rows]``.
        sources: the names of the sources.
        fits: for each kind the clean rows that it could have changed, bool ``[rows]``.
    """

    labels: np.ndarray
    answer: np.ndarray
    conversation: np.ndarray
    codes: np.ndarray
    sources: tuple[str, ...]
    fits: Mapping[str, np.ndarray]

    @classmethod
    def open(cls, pool: Pool, kinds: Iterable[str]) -> "Sample":
        """Read the labels and lengths of a pool in which these kinds of damage were planted."""
        labels = [
            label or CLEAN
            for batch in pool.batches()
            for label in batch.column("meta").field("label").to_pylist()
        ]
        conversation, answer = lengths(pool, np.arange(len(pool)))
        names = pool.source_names()
        fits = dict(zip(sorted(kinds), np.load(pool.folder / FITS).T, strict=True))
        return cls(
            np.asarray(labels, dtype=np.str_),
            answer,
            conversation,
            names.indices.to_numpy(),
            tuple(names.dictionary.to_pylist()),
            fits,
        )

    @property
    def clean(self) -> np.ndarray:
        """Which rows are clean, bool ``[rows]``."""
        return np.asarray(self.labels == CLEAN)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that were planted and that some clean row can be compared with, by name."""
        planted = (str(kind) for kind in np.unique(self.labels) if kind != CLEAN)
        return tuple(kind for kind in planted if self.fits[kind].any())


@dataclass(frozen=True)
class KindFinding:
    """How well a score separates clean rows from rows with one kind of damage.

    Attributes:
        kind: the kind.
        seen: whether warm-up was shown this kind before the score was made.
        auroc: the clean rows that this kind could have changed over the rows that it did.
    """

    kind: str
    seen: bool
    auroc: Auroc


@dataclass(frozen=True)
class ScoreFinding:
    """What an audit finds out about one score.

    Attributes:
        name: the score's name.
        component: the scorer's name.
        kinds: kind by kind, those that warm-up was shown first.
        overall: clean over damaged rows of every kind.
        seen: clean over damaged rows of the kinds that warm-up was shown, if there are any.
        unseen: clean over the others; ``None`` where every kind was shown.
        fraction: the share of best rows that ``precision`` and ``shifts`` use.
        precision: the share of clean rows among the best ones.
        unseen_precision: the same among clean rows and those of the kinds that warm-up was not
            shown; ``None`` where it was shown none, or all.
        answer: Spearman's correlation with the length of the answers, over clean rows.
        conversation: the same with the length of the whole conversation.
        shifts: the sources among the best clean rows and among all clean rows.
        skipped_clean: clean rows that got no score.
        skipped_damaged: damaged rows that got no score.
    """

    name: str
    component: str
    kinds: tuple[KindFinding, ...]
    overall: Auroc
    seen: Auroc | None
    unseen: Auroc | None
    fraction: float
    precision: Precision
    unseen_precision: Precision | None
    answer: float
    conversation: float
    shifts: tuple[Shift, ...]
    skipped_clean: int
    skipped_damaged: int


def examine_score(
    name: str,
    component: str,
    score: np.ndarray,
    sample: Sample,
    *,
    shown: Collection[str],
    fraction: float,
) -> ScoreFinding:
    """Measure a score against the labels of a sample.

    Args:
        name: the score's name.
        component: the scorer's name.
        score: ``[rows]``, NaN for none.
        sample: the rows.
        shown: the kinds of damage that were used to make the score.
        fraction: the share of best rows to examine.
    """
    clean = sample.clean
    kinds = sorted(sample.kinds, key=lambda kind: (kind not in shown, kind))
    scored = clean & np.isfinite(score)
    return ScoreFinding(
        name=name,
        component=component,
        kinds=tuple(
            KindFinding(kind, kind in shown, _over_kind(score, sample, kind)) for kind in kinds
        ),
        overall=_over(score, sample, kinds),
        seen=_some(score, sample, [kind for kind in kinds if kind in shown]),
        unseen=_some(score, sample, [kind for kind in kinds if kind not in shown]),
        fraction=fraction,
        precision=precision(score, clean, fraction),
        unseen_precision=_unseen_precision(score, sample, kinds, shown, fraction),
        answer=_spearman(score[scored], sample.answer[scored]),
        conversation=_spearman(score[scored], sample.conversation[scored]),
        shifts=shifts(score[clean], sample.codes[clean], sample.sources, fraction),
        skipped_clean=int((clean & ~np.isfinite(score)).sum()),
        skipped_damaged=int((~clean & ~np.isfinite(score)).sum()),
    )


def _over_kind(score: np.ndarray, sample: Sample, kind: str) -> Auroc:
    return auroc(score[sample.fits[kind]], score[sample.labels == kind])


def _over(score: np.ndarray, sample: Sample, kinds: Sequence[str]) -> Auroc:
    return auroc(score[sample.clean], score[np.isin(sample.labels, kinds)])


def _some(score: np.ndarray, sample: Sample, kinds: Sequence[str]) -> Auroc | None:
    return _over(score, sample, kinds) if kinds else None


def _unseen_precision(
    score: np.ndarray,
    sample: Sample,
    kinds: Sequence[str],
    shown: Collection[str],
    fraction: float,
) -> Precision | None:
    unseen = [kind for kind in kinds if kind not in shown]
    if not unseen or len(unseen) == len(kinds):
        return None
    rows = sample.clean | np.isin(sample.labels, unseen)
    return precision(score[rows], sample.clean[rows], fraction)


def _spearman(score: np.ndarray, length: np.ndarray) -> float:
    return spearman(score, length) if len(score) > 2 else float("nan")

"""What a score sees of the quality that a user labelled, and the verdict in words."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from selectmoe_core.audit.agreement import (
    Agreement,
    Measure,
    alike,
    of_area,
    of_pairs,
    of_ranks,
    pairs_within,
    with_interval,
)
from selectmoe_core.report.distribution import spearman

ENOUGH = 20
"""Fewer prompts, or fewer rows of either label, are not judged."""
CLEAR = 0.7
"""The pair accuracy or AUROC from which a score agrees clearly; a rank correlation of .4."""
Level = Literal["yes", "partly", "no", "unknown"]
CHANCE = {"pairs": 0.5, "area": 0.5, "ranks": 0.0}
NAMES = {"pairs": "pair accuracy", "area": "AUROC", "ranks": "rank correlation"}


@dataclass(frozen=True)
class Labelled:
    """Labelled rows.

    Attributes:
        value: the label of each row, higher is better, ``[rows]``.
        prompts: a number for the prompt of each row, int ``[rows]``.
        length: characters of its answers, ``[rows]``.
        pairs: positions of a better and a worse row of one prompt, ``[pairs, 2]``.
    """

    value: np.ndarray
    prompts: np.ndarray
    length: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(
        cls, value: np.ndarray, prompts: np.ndarray, length: np.ndarray, *, paired: bool
    ) -> "Labelled":
        """Return rows with their pairs: each two rows of a prompt, or those that were given.

        ``paired``: each row is followed by the worse one of its pair.
        """
        two = np.arange(len(value)).reshape(-1, 2) if paired else pairs_within(value, prompts)
        return cls(value, prompts, length, two)

    @property
    def binary(self) -> bool:
        """Whether there are two labels."""
        return len(np.unique(self.value)) == 2

    @property
    def good(self) -> np.ndarray:
        """Which rows have the better of two labels, bool ``[rows]``."""
        return np.asarray(self.value == self.value.max())


@dataclass(frozen=True)
class LabelFinding:
    """How far a score agrees with labels.

    Attributes:
        name: the score's name.
        component: the scorer's name.
        pairs: the share of pairs of one prompt whose better row scores higher.
        alike: the same over pairs whose answers are about equally long.
        area: the AUROC of good over bad rows; ``None`` with more than two labels.
        ranks: Spearman's correlation with the label; ``None`` with two labels.
        beyond: the main measure minus that of length in its better direction.
        main: which measure decides.
        answer: Spearman's correlation with the length of the answers.
        skipped: rows that got no score.
    """

    name: str
    component: str
    pairs: Agreement
    alike: Agreement
    area: Agreement | None
    ranks: Agreement | None
    beyond: Agreement
    main: Literal["pairs", "area", "ranks"]
    answer: float
    skipped: int

    @property
    def deciding(self) -> Agreement:
        """The measure that decides."""
        found = {"pairs": self.pairs, "area": self.area, "ranks": self.ranks}[self.main]
        assert found is not None
        return found


def examine(name: str, component: str, score: np.ndarray, rows: Labelled) -> LabelFinding:
    """Measure a score against labels.

    Args:
        name: the score's name.
        component: the scorer's name.
        score: ``[rows]``, NaN for none.
        rows: the labelled rows.
    """
    measures = {"pairs": of_pairs(score, rows.pairs)}
    lengths = {"pairs": of_pairs(rows.length, rows.pairs)}
    groups = {"pairs": rows.prompts[rows.pairs[:, 0]]}
    overall: Literal["area", "ranks"] = "area" if rows.binary else "ranks"
    measures[overall] = _over_all(score, rows)
    lengths[overall] = _over_all(rows.length, rows)
    groups[overall] = rows.prompts
    found = {kind: with_interval(measures[kind], groups[kind]) for kind in measures}
    main: Literal["pairs", "area", "ranks"] = (
        "pairs" if found["pairs"].prompts >= ENOUGH else overall
    )
    same = alike(rows.pairs, rows.length)
    scored = np.isfinite(score)
    return LabelFinding(
        name=name,
        component=component,
        pairs=found["pairs"],
        alike=with_interval(of_pairs(score, same), rows.prompts[same[:, 0]]),
        area=found.get("area"),
        ranks=found.get("ranks"),
        beyond=with_interval(
            _beyond(measures[main], lengths[main], len(groups[main]), CHANCE[main]), groups[main]
        ),
        main=main,
        answer=spearman(score[scored], rows.length[scored]) if scored.sum() > 2 else float("nan"),
        skipped=int((~scored).sum()),
    )


def _over_all(score: np.ndarray, rows: Labelled) -> Measure:
    return of_area(score, rows.good) if rows.binary else of_ranks(score, rows.value)


def _beyond(measure: Measure, length: Measure, count: int, chance: float) -> Measure:
    """Return what measures how much more a score agrees than length does, in either direction."""
    sign = 1 if not length(np.ones(count)) < chance else -1

    def gap(weights: np.ndarray) -> float:
        return measure(weights) - (chance + sign * (length(weights) - chance))

    return gap


@dataclass(frozen=True)
class LabelVerdict:
    """Whether a score agrees with the labels.

    Attributes:
        level: ``yes``, ``partly``, ``no``, or ``unknown`` if there are too few rows.
        sentences: the reasons; the first sentence is the short answer.
    """

    level: Level
    sentences: tuple[str, ...]


def judge_labels(finding: LabelFinding, rows: Labelled) -> LabelVerdict:
    """Return the verdict; docs/audit.md states its rules."""
    level, first = _level(finding, rows)
    sentences = [first]
    if level != "unknown":
        gap = finding.beyond
        sentences.append(
            f"Its {NAMES[finding.main]} is {shown(finding.deciding)}; that is {gap.value:+.2f} "
            f"[{gap.low:+.2f}, {gap.high:+.2f}] beyond length in its better direction."
        )
    if finding.skipped:
        sentences.append(f"It gives no score to {finding.skipped:,} rows; they rank last.")
    return LabelVerdict(level, tuple(sentences))


def _level(finding: LabelFinding, rows: Labelled) -> tuple[Level, str]:
    found, chance = finding.deciding, CHANCE[finding.main]
    few = finding.main == "area" and min(rows.good.sum(), (~rows.good).sum()) < ENOUGH
    if found.prompts < ENOUGH or few:
        what = f"{ENOUGH} rows of either label" if few else f"{ENOUGH} prompts"
        return "unknown", f"Not judged: there are fewer than {what}."
    if found.high < chance:
        return "no", "Worse than chance: it prefers the rows that you labelled as worse."
    if not found.low > chance:
        return "no", "No better than chance on your labels."
    if not finding.beyond.low > 0:
        return "partly", "It agrees with your labels, but not clearly more than length does."
    clear = 0.4 if finding.main == "ranks" else CLEAR
    if found.value < clear:
        return "partly", "It agrees with your labels a little."
    return "yes", "It agrees with your labels."


def shown(found: Agreement) -> str:
    """Return a measure with its interval."""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"

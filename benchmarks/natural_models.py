"""Answers of models of known strength: does a score prefer those of the stronger model?

A file holds rows with ``messages``, ``model`` and ``win_rate`` (how often people or a judge prefer
that model's answers to a reference, the same number in all of its rows); ``prompt_in_pool`` marks
rows to leave out. Length is controlled: strong models write longer answers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evidence_data import Judged, normal
from natural_sets import usable_rows
from scipy.stats import rankdata

from selectmoe_core import Example
from selectmoe_core.audit.agreement import Measure, of_ranks, with_interval

FILE = "natural/model_answers.jsonl"
NAME = "models"
WIDTH = 54


@dataclass(frozen=True)
class ModelAnswers:
    """Answers of several models to the same prompts.

    Attributes:
        examples: the rows.
        models: the model of each, as a number, int ``[rows]``.
        win_rate: of its model, ``[rows]``.
        prompts: a number for each prompt, int ``[rows]``.
    """

    examples: list[Example]
    models: np.ndarray
    win_rate: np.ndarray
    prompts: np.ndarray

    @property
    def judged(self) -> Judged:
        """The rows as the evidence judges them; none is damaged."""
        return Judged(NAME, self.examples, np.full(len(self.examples), ""))


def read_models(data: Path) -> ModelAnswers | None:
    """Return the answers of a data folder, or ``None`` if it has none."""
    if not (data / FILE).is_file():
        return None
    rows = list(usable_rows(data / FILE))
    examples = [example for example, _ in rows]
    names = [str(row["model"]) for _, row in rows]
    asked = [normal([example.messages[0].content]) for example in examples]
    return ModelAnswers(
        examples,
        np.unique(names, return_inverse=True)[1],
        np.array([float(str(row["win_rate"])) for _, row in rows]),
        np.unique(asked, return_inverse=True)[1],
    )


def partial(score: np.ndarray, grade: np.ndarray, control: np.ndarray) -> Measure:
    """Return what measures Spearman's correlation of a score and a grade at equal ``control``."""
    both, ours, theirs = of_ranks(score, grade), of_ranks(score, control), of_ranks(grade, control)

    def measure(weights: np.ndarray) -> float:
        ab, ac, bc = both(weights), ours(weights), theirs(weights)
        rest = (1 - ac**2) * (1 - bc**2)
        return float((ab - ac * bc) / np.sqrt(rest)) if rest > 0 else float("nan")

    return measure


def of_models(score: np.ndarray, answers: ModelAnswers) -> Measure:
    """Return what measures the rank correlation of models' mean ranks with their win rates."""
    ranks = rankdata(np.where(np.isfinite(score), score, -np.inf))
    count = int(answers.models.max()) + 1
    rates = np.zeros(count)
    rates[answers.models] = answers.win_rate

    def measure(weights: np.ndarray) -> float:
        totals = np.bincount(answers.models, weights, count)
        known = totals > 0
        sums = np.bincount(answers.models, weights * ranks, count)
        return of_ranks(sums[known] / totals[known], rates[known])(np.ones(int(known.sum())))

    return measure


def models_table(
    answers: ModelAnswers, scores: Mapping[str, np.ndarray], length: np.ndarray
) -> tuple[str, dict[str, Any]]:
    """Return the table of rank correlations with win rates, and its figures.

    Args:
        answers: the rows.
        scores: ``[rows]`` each; one that scores none of them is left out.
        length: of the answers.
    """
    lines = [
        f"{NAME}: {int(answers.models.max()) + 1} models, {len(answers.examples)} answers; rank "
        "correlation with the win rate",
        f"{'':<{WIDTH}}{'answers':>22}{'at equal length':>22}{'means of models':>22}",
    ]
    figures: dict[str, Any] = {}
    for name, score in scores.items():
        if not np.isfinite(score).any():
            continue
        found = {
            "answers": of_ranks(score, answers.win_rate),
            "at equal length": partial(score, answers.win_rate, length),
            "means of models": of_models(score, answers),
        }
        values = {way: with_interval(measure, answers.prompts) for way, measure in found.items()}
        figures[name] = {way: asdict(value) for way, value in values.items()}
        cells = [f"{v.value:.3f} [{v.low:.2f}, {v.high:.2f}]" for v in values.values()]
        lines.append(f"{name:<{WIDTH}}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines), figures

"""The difference of two arms, with an interval that covers the noise of questions and of seeds.

Two arms answer the same questions after training with the same seeds. The mean difference over
seeds and questions is uncertain for two reasons:

- other questions could have been asked: a paired bootstrap over the questions, of the differences
  averaged over the seeds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8);
- other seeds could have been used: a t distribution with ``seeds - 1`` degrees of freedom, scaled
  by the standard error of the seeds' mean differences.

Both deviations are added up as independent: the sum of a bootstrap distribution and a t
distribution. With a normal distribution in place of the bootstrap this is the solution of Behrens
and Fisher, which covers at least its nominal share. What a seed changes on single questions counts
in both parts, so intervals tend to be too wide rather than too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
"""Bootstrap samples of the questions."""
CELLS = 1 << 24
"""The most random numbers in memory at once."""
FEW_VALUES = 64
"""Up to so many different values, a resample is drawn as how often it has each of them."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference of two arms.

    Attributes:
        value: the difference of the means.
        low: lower end of the interval.
        high: upper end of the interval.
        p_value: two-sided, of no difference.
        seeds: how many trainings of each arm there are; with one, the interval covers only the
            noise of the questions.
        questions: how many questions there are, over all tasks.
        question_error: standard error from the questions.
        seed_error: standard error from the seeds; ``None`` with one seed.
    """

    value: float
    low: float
    high: float
    p_value: float
    seeds: int
    questions: int
    question_error: float
    seed_error: float | None


def estimate(
    differences: Sequence[np.ndarray], *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the mean difference of two arms; all tasks have the same weight.

    Args:
        differences: for each task the first arm's result less the second arm's, ``[seeds,
            questions]``; the seeds are the same in all tasks.
        confidence: the share of intervals that contain the true difference.
        seed: of the bootstrap.

    Raises:
        ValueError: no task, no question, or tasks with different numbers of seeds.
    """
    seeds = _seeds(differences)
    by_seed = np.mean([task.mean(axis=1) for task in differences], axis=0)
    value = float(by_seed.mean())
    rng = np.random.default_rng(seed)
    resampled = np.mean([_bootstrap(task.mean(axis=0), rng) for task in differences], axis=0)
    centres = value + (resampled - resampled.mean())
    error = None if seeds == 1 else float(by_seed.std(ddof=1) / np.sqrt(seeds))
    total = _Sum(centres, error or 0.0, seeds - 1)
    tail = (1 - confidence) / 2
    return Estimate(
        value=value,
        low=total.quantile(tail),
        high=total.quantile(1 - tail),
        p_value=min(1.0, 2 * min(total.below(0.0), 1 - total.below(0.0, strictly=True))),
        seeds=seeds,
        questions=sum(task.shape[1] for task in differences),
        question_error=float(centres.std(ddof=1)),
        seed_error=error,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm, Scand. J. Statist. 6, 1979), in their order.

    The smallest is multiplied by their number, the next by one less, and so on; none falls below
    the one before, and none exceeds 1.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, place in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def _seeds(differences: Sequence[np.ndarray]) -> int:
    if not differences:
        raise ValueError("there is no task to compare")
    seeds = {task.shape[0] for task in differences}
    if len(seeds) != 1 or 0 in seeds or any(task.shape[1] == 0 for task in differences):
        raise ValueError(f"tasks of shapes {[task.shape for task in differences]}")
    return int(seeds.pop())


def _bootstrap(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return means of resampled ``values`` ``[questions]``: float64 ``[RESAMPLES]``.

    The deviations are widened by ``sqrt(n / (n - 1))``, so that their variance is unbiased.
    """
    count = len(values)
    distinct, times = np.unique(values, return_counts=True)
    if len(distinct) <= FEW_VALUES:  # right or wrong answers, averaged over a few seeds
        drawn = rng.multinomial(count, times / count, RESAMPLES)
        means = drawn @ distinct / count
    else:
        rows = max(1, CELLS // count)
        means = np.concatenate(
            [
                values[rng.integers(0, count, (min(rows, RESAMPLES - start), count))].mean(axis=1)
                for start in range(0, RESAMPLES, rows)
            ]
        )
    widened = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    return np.asarray(values.mean() + (means - values.mean()) * widened)


@dataclass(frozen=True)
class _Sum:
    """A bootstrap distribution plus a scaled t distribution.

    Attributes:
        centres: the bootstrap's means, ``[resamples]``.
        scale: of the t distribution; 0 if seeds made no difference or there is only one.
        freedom: degrees of freedom of the t distribution.
    """

    centres: np.ndarray
    scale: float
    freedom: int

    def below(self, value: float, *, strictly: bool = False) -> float:
        """Return the probability of at most ``value``, or of less than it."""
        if self.scale:
            from scipy.special import stdtr  # the distribution function of t

            return float(stdtr(self.freedom, (value - self.centres) / self.scale).mean())
        return float((self.centres < value if strictly else self.centres <= value).mean())

    def quantile(self, share: float) -> float:
        """Return the value below which ``share`` of the probability lies."""
        if not self.scale:
            return float(np.quantile(self.centres, share))
        from scipy.optimize import brentq
        from scipy.stats import t

        tail = abs(float(t.ppf(share / 2 if share < 0.5 else (1 - share) / 2, self.freedom)))
        low, high = (
            float(self.centres.min()) - (tail + 1) * self.scale,
            float(self.centres.max()) + (tail + 1) * self.scale,
        )
        return float(brentq(lambda value: self.below(value) - share, low, high, xtol=1e-9))

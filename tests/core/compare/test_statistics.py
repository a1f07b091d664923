"""Differences of arms: by hand, against a slow reference, and over simulated comparisons."""

import math

import numpy as np
import pytest
from scipy import stats

from selectmoe_core.compare.statistics import RESAMPLES, estimate, holm


def test_one_seed_holds_the_questions_alone():
    rng = np.random.default_rng(0)
    differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(1, 400))
    found = estimate([differences])
    error = differences.std(ddof=1) / 20
    assert found.value == pytest.approx(differences.mean())
    assert (found.seeds, found.questions, found.seed_error) == (1, 400, None)
    assert found.question_error == pytest.approx(error, rel=0.05)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)
    expected = 2 * stats.norm.sf(found.value / error)
    assert found.p_value == pytest.approx(expected, rel=0.5, abs=2 / RESAMPLES)


def test_questions_without_noise_leave_the_t_interval_of_the_seeds():
    """Seeds differ by .01, .03 and .05 on every question alike: mean .03, error .02 / sqrt(3)."""
    differences = np.repeat([[0.01], [0.03], [0.05]], 50, axis=1)
    found = estimate([differences])
    half = 4.302652729749464 * 0.02 / math.sqrt(3)  # the .975 quantile of t with 2 degrees
    assert found.question_error == pytest.approx(0, abs=1e-12)
    assert found.seed_error == pytest.approx(0.02 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6)
    assert found.p_value == pytest.approx(stats.ttest_1samp([0.01, 0.03, 0.05], 0).pvalue, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_sum_of_both_equals_drawing_from_both(seed):
    rng = np.random.default_rng(seed)
    tasks = [rng.normal(0.1, 1, (3, 60)) + rng.normal(0, 0.1, (3, 1)) for _ in range(2)]
    found = estimate(tasks, confidence=0.9)
    by_seed = np.mean([task.mean(axis=1) for task in tasks], axis=0)
    draws = []
    for _ in range(20_000):
        means = []
        for task in tasks:
            values = task.mean(axis=0)
            picked = values[rng.integers(0, 60, 60)].mean() - values.mean()
            means.append(values.mean() + picked * math.sqrt(60 / 59))
        draws.append(np.mean(means))
    draws = np.array(draws) + rng.standard_t(2, 20_000) * by_seed.std(ddof=1) / math.sqrt(3)
    width = found.high - found.low
    assert np.quantile(draws, [0.05, 0.95]) == pytest.approx(
        [found.low, found.high], abs=0.04 * width
    )
    share = (draws <= 0).mean()
    assert found.p_value == pytest.approx(2 * min(share, 1 - share), abs=0.03)


@pytest.mark.parametrize("seeds", [1, 3])
def test_resamples_of_few_values_are_those_of_drawing_questions(monkeypatch, seeds):
    """Answers of few values are drawn as counts; the same as drawing question after question."""
    monkeypatch.setattr("selectmoe_core.compare.statistics.RESAMPLES", 160_000)
    # The same answers in each run: with one set of 25 an end falls into a gap of the grid below,
    # and jumps over it.
    rng = np.random.default_rng(7)
    # Sums of whole numbers lie on a grid that is coarser than what is allowed between two ends.
    task = rng.choice([-1.0, 0.0137, 0.9713], p=[0.2, 0.5, 0.3], size=(seeds, 80))
    counted = estimate([task])
    monkeypatch.setattr("selectmoe_core.compare.statistics.FEW_VALUES", 0)
    drawn = estimate([task])
    assert counted.value == drawn.value
    assert counted.question_error == pytest.approx(drawn.question_error, rel=0.03)
    width = drawn.high - drawn.low
    assert (counted.low, counted.high) == pytest.approx((drawn.low, drawn.high), abs=0.02 * width)
    assert counted.p_value == pytest.approx(drawn.p_value, abs=0.02)


def test_no_difference_at_all():
    found = estimate([np.zeros((3, 20))])
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    "tasks", [[], [np.zeros((2, 0))], [np.zeros((2, 3)), np.zeros((3, 3))], [np.zeros((0, 4))]]
)
def test_what_cannot_be_compared(tasks):
    with pytest.raises(ValueError, match="task"):
        estimate(tasks)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def compared(rng, seeds, questions, gain, seed_noise):
    """Two arms on the same questions; logits of 0.1 are about two points of accuracy."""
    ease = rng.normal(0, 1.5, questions)
    arms = []
    for own_gain in (gain, 0.0):
        training = rng.normal(0, seed_noise, (seeds, 1))
        chance = 1 / (1 + np.exp(-(ease + training + own_gain)))
        arms.append(rng.random((seeds, questions)) < chance)
    return arms[0].astype(float) - arms[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed_noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seeds", [3, 5])
def test_at_most_so_many_null_comparisons_are_called_different(monkeypatch, seeds, seed_noise):
    monkeypatch.setattr("selectmoe_core.compare.statistics.RESAMPLES", 400)
    rng = np.random.default_rng(seeds)
    called = sum(
        estimate([compared(rng, seeds, 200, 0.0, seed_noise)], seed=trial).p_value < 0.05
        for trial in range(1000)
    )
    assert called <= 65
    # Not so wide that nothing would ever be found.
    found = sum(
        estimate([compared(rng, seeds, 200, 1.5, seed_noise)], seed=trial).p_value < 0.05
        for trial in range(50)
    )
    assert found >= 35

"""Agreement with labels against slow, plain formulas, and what its intervals cover."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from selectmoe_core.audit.agreement import (
    alike,
    area,
    of_area,
    of_pairs,
    of_ranks,
    pair_accuracy,
    pairs_within,
    with_interval,
)


def rows(seed, count=60, prompts=15):
    random = np.random.default_rng(seed)
    score = np.round(random.normal(size=count), 1)  # ties
    score[random.random(count) < 0.1] = np.nan
    return score, random.integers(0, 4, count).astype(float), random.integers(0, prompts, count)


def slow_order(one, other):
    """1 above, .5 equal, 0 below; no score is below every score."""
    one, other = (-np.inf if np.isnan(x) else x for x in (one, other))
    return 1.0 if one > other else 0.5 if one == other else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_pairs_are_all_rows_of_a_prompt_with_different_labels(seed):
    _, value, prompts = rows(seed)
    wanted = {
        (i, j)
        for i in range(len(value))
        for j in range(len(value))
        if prompts[i] == prompts[j] and value[i] > value[j]
    }
    found = pairs_within(value, prompts)
    assert {tuple(pair) for pair in found.tolist()} == wanted
    assert len(found) == len(wanted)
    assert pairs_within(value[:0], prompts[:0]).shape == (0, 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_measures_are_those_of_plain_loops(seed):
    score, value, prompts = rows(seed)
    pairs, good = pairs_within(value, prompts), value >= 2
    wanted = np.mean([slow_order(score[i], score[j]) for i, j in pairs])
    assert pair_accuracy(score, pairs, prompts).value == pytest.approx(wanted)
    wanted = np.mean([slow_order(a, b) for a in score[good] for b in score[~good]])
    assert area(score, good, prompts).value == pytest.approx(wanted)
    filled = np.where(np.isnan(score), -1e9, score)
    wanted = spearmanr(filled, value).statistic
    assert of_ranks(score, value)(np.ones(len(score))) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_as_many_copies_of_a_row(seed):
    score, value, prompts = rows(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(score))
    again = np.repeat(np.arange(len(score)), weights)
    good = value >= 2
    for measure, repeated in (
        (of_area(score, good), of_area(score[again], good[again])),
        (of_ranks(score, value), of_ranks(score[again], value[again])),
    ):
        wanted = repeated(np.ones(len(again)))
        assert measure(weights.astype(float)) == pytest.approx(wanted)
    pairs = pairs_within(value, prompts)
    times = np.random.default_rng(seed).integers(0, 4, len(pairs))
    wanted = of_pairs(score, np.repeat(pairs, times, axis=0))(np.ones(times.sum()))
    assert of_pairs(score, pairs)(times.astype(float)) == pytest.approx(wanted)


def test_intervals_cover_what_they_should_and_grow_with_dependence():
    random = np.random.default_rng(3)
    covered, widths = 0, []
    for _ in range(60):
        found = random.random(200) < 0.7
        prompts = np.repeat(np.arange(100), 2)
        score = np.column_stack([found, ~found]).astype(float).ravel()
        pairs = np.arange(400).reshape(-1, 2)
        inside = pair_accuracy(score, pairs, np.repeat(prompts, 2))
        covered += inside.low <= 0.7 <= inside.high
        widths.append(inside.high - inside.low)
    assert covered >= 50  # of 60, 57 expected
    assert 0.08 < np.mean(widths) < 0.17
    # The same answer twice to each prompt: half as many independent pairs.
    alone = with_interval(lambda w: float(w @ found[::2] / w.sum()), np.arange(100))
    twice = np.repeat(found[::2], 2)
    double = with_interval(lambda w: float(w @ twice / w.sum()), prompts)
    assert double.high - double.low == pytest.approx(alone.high - alone.low, abs=0.02)


def test_equal_lengths_and_nothing_to_measure():
    pairs = np.array([[0, 1], [0, 2], [2, 1]])
    assert alike(pairs, np.array([100.0, 119.0, 60.0])).tolist() == [[0, 1]]
    nothing = pair_accuracy(np.ones(3), pairs[:0], np.arange(3))
    assert (nothing.count, nothing.prompts) == (0, 0)
    assert np.isnan(nothing.value)

"""The token-ifd scorer against plain loops, token by token, and against the published rule."""

import math

import numpy as np
import pyarrow as pa
import pytest
from lm_models import context_of, slow_answers, trial
from pydantic import ValidationError
from transformers import LlamaForCausalLM

from selectmoe_core import ScoreTable, ShardScores
from selectmoe_core.data.final_scores import replace_scores
from selectmoe_core.data.scores import write_part
from selectmoe_core.stages.scoring import score as score_stage
from selectmoe_core.testing import check_scorer, generated_examples
from selectmoe_lm.answers import Answers
from selectmoe_lm.config import TokenIfdConfig
from selectmoe_lm.ifd import FROM_ONE, NO_TURN
from selectmoe_lm.plugin import selectmoe_scorers
from selectmoe_lm.token_ifd import (
    LEVELS,
    LOWEST,
    NO_TOKEN,
    TOO_FEW,
    TokenIfdScorer,
    above,
    by_level,
    changes_of,
    threshold_level,
)

pytest_plugins = ["lm_fixtures"]

TOKEN_IFD = next(c for c in selectmoe_scorers() if c.name == "token-ifd")


def plain_levels(changes):
    """Counts and sums of changes at each level, one token after the other."""
    edges = [LOWEST * 2 ** (number / 8) for number in range(LEVELS)]
    counts, sums = [0.0] * LEVELS, [0.0] * LEVELS
    for change in changes:
        size = min(max(abs(change), edges[0]), edges[-1])
        low = max(n for n in range(LEVELS - 1) if edges[n] <= size * (1 + 1e-12))
        part = math.log(size / edges[low]) / math.log(edges[low + 1] / edges[low])
        for level, weight in ((low, 1 - part), (low + 1, part)):
            counts[level] += weight
            sums[level] += weight * change
    return counts, sums


def plain_scores(rows, share):
    """The scores of a pool from the changes of its rows: levels are taken from the highest down."""
    levels = [plain_levels(changes) for changes in rows]
    wanted = share * sum(sum(counts) for counts, _ in levels)
    weights = [0.0] * LEVELS
    for level in reversed(range(LEVELS)):
        there = sum(counts[level] for counts, _ in levels)
        if wanted <= 0:
            break
        weights[level] = min(1.0, wanted / there) if there else 1.0
        wanted -= there
    scores = []
    for counts, sums in levels:
        tokens = sum(w * c for w, c in zip(weights, counts, strict=True))
        change = sum(w * s for w, s in zip(weights, sums, strict=True))
        scores.append((math.exp(change / tokens) if tokens else None, tokens))
    return scores


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_it_equals_a_slow_loop_over_the_tokens(llama, examples, tmp_path, share):
    bench, config, job = trial(
        tmp_path, llama, examples, TOKEN_IFD, share=share, skip_from_one=False
    )
    facts = score_stage.run(context_of(TOKEN_IFD, config, bench, job, tmp_path / "out",
                                     shard_examples=7))  # fmt: skip
    table = ScoreTable.open(tmp_path / "out")
    model = LlamaForCausalLM.from_pretrained(llama.location)
    rows = [row for row in range(len(examples)) if row not in (7, 8)]
    changes = [
        [a - b for given, by in slow_answers(model, examples[row])
         for a, b in zip(given, by, strict=True)]
        for row in rows
    ]  # fmt: skip
    expected = plain_scores(changes, share)
    found = table.score()
    for row, (value, tokens), own in zip(rows, expected, changes, strict=True):
        if abs(tokens - TOO_FEW) > 0.01:  # nearer, rounding decides whether it has a score
            assert np.isnan(found[row]) == (tokens < TOO_FEW)
        if not np.isnan(found[row]):
            assert found[row] == pytest.approx(value, rel=2e-3)
        assert table.detail("tokens")[row] == len(own)
        assert table.detail("ifd")[row] == pytest.approx(math.exp(np.mean(own)), rel=2e-3)
    assert facts["skipped"][NO_TURN] == 2
    assert facts["skipped"].get(NO_TOKEN, 0) == np.isnan(found[rows]).sum()
    if share == 1:
        np.testing.assert_allclose(found[rows], table.detail("ifd")[rows], rtol=1e-5)
    again = score_stage.run(context_of(TOKEN_IFD, config, bench, job, tmp_path / "out",
                                     shard_examples=7))  # fmt: skip
    assert again == facts
    np.testing.assert_array_equal(ScoreTable.open(tmp_path / "out").score(), found)


def test_where_no_change_is_near_the_threshold_it_is_the_published_rule():
    random = np.random.default_rng()
    for _ in range(50):
        small = [random.uniform(-0.02, 0.02, size=random.integers(0, 9)) for _ in range(30)]
        large = [random.uniform(0.3, 6, size=len(own)) * random.choice([-1, 1]) for own in small]
        rows = [np.concatenate(pair) for pair in zip(small, large, strict=True)]
        level = threshold_level(sum(by_level(row)[0] for row in rows).astype(float), 0.5)
        counts, sums = (np.stack(arrays) for arrays in zip(*map(by_level, rows), strict=True))
        found, tokens = above(counts, sums, level)
        limit = np.percentile(np.abs(np.concatenate(rows)), 50)
        for row, value, count in zip(rows, found, tokens, strict=True):
            informative = row[np.abs(row) > limit]
            assert count == pytest.approx(len(informative), abs=1e-3)
            if len(informative):
                assert value == pytest.approx(math.exp(informative.mean()), rel=1e-5)


def test_a_small_difference_of_a_loss_makes_a_small_difference_of_the_score():
    random = np.random.default_rng()
    rows = [random.normal(size=random.integers(3, 30)) for _ in range(20)]

    def scores(rows):
        counts, sums = (np.stack(arrays) for arrays in zip(*map(by_level, rows), strict=True))
        return above(counts, sums, threshold_level(counts.sum(axis=0, dtype=float), 0.5))

    moved, _ = scores([row + random.uniform(-1e-6, 1e-6, size=len(row)) for row in rows])
    scored, tokens = scores(rows)
    enough = tokens >= TOO_FEW
    assert enough.sum() > 5
    np.testing.assert_allclose(moved[enough], scored[enough], rtol=2e-4)


def test_changes_are_those_of_all_answers():
    given = [np.array([1.0, 2.0], np.float32), np.array([0.5], np.float32)]
    alone = [np.array([3.0, 1.0], np.float32), np.array([1.0], np.float32)]
    assert changes_of(Answers(given, alone)).tolist() == [-2.0, 1.0, -0.5]
    assert changes_of(Answers([], [])).tolist() == []


def test_an_ifd_of_one_or_more_and_a_row_that_the_instruction_does_not_change(tmp_path):
    rows = [[-1.0, -0.001], [0.5, 0.4], [-0.0005, -0.0007], [-2.0, 1.0]]
    levels = [by_level(np.array(row)) for row in rows]
    ifd = np.array([math.exp(np.mean(row)) for row in rows])
    skipped = [FROM_ONE if value >= 1 else None for value in ifd]
    details = {"ifd": ifd, "counts": np.stack([c for c, _ in levels]),
               "changes": np.stack([s for _, s in levels])}  # fmt: skip
    scores = ShardScores(np.where(ifd >= 1, np.nan, ifd), skipped, details)
    ids = pa.array([bytes([n] * 16) for n in range(4)], pa.binary(16))
    write_part(tmp_path, 0, ids, pa.array(["s"] * 4), scores)
    finish = TokenIfdScorer(TokenIfdConfig()).finish(ScoreTable.open(tmp_path))
    replace_scores(ScoreTable.open(tmp_path), finish.score, finish.skipped)
    table = ScoreTable.open(tmp_path)
    assert table.column("skipped").cast(pa.string()).to_pylist() == [
        None, FROM_ONE, NO_TOKEN, None
    ]  # fmt: skip
    assert np.isnan(table.score()[[1, 2]]).all()
    # Four of the eight tokens count: 0.5, -1, -2 and 1, and 0.4 in part or not at all.
    assert table.score()[0] == pytest.approx(math.exp(-1), rel=1e-3)
    assert table.score()[3] == pytest.approx(math.exp(-0.5), rel=1e-3)
    assert "25.0% of the examples have no token" in finish.warnings[0]


@pytest.mark.parametrize("options", [{}, {"prefer": "low", "share": 0.2, "skip_from_one": False}])
def test_it_passes_the_conformance_kit(llama, options):
    some = generated_examples(16)
    check_scorer(TOKEN_IFD, options=options, examples=some, model=llama.location, tolerance=5e-3)


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_is_a_share(share):
    with pytest.raises(ValidationError):
        TokenIfdConfig(share=share)


def test_low_is_minus_high(llama, examples, tmp_path):
    found = []
    for prefer in ("high", "low"):
        folder = tmp_path / prefer
        bench, config, job = trial(folder, llama, examples, TOKEN_IFD, prefer=prefer)
        score_stage.run(context_of(TOKEN_IFD, config, bench, job, folder / "out"))
        found.append(ScoreTable.open(folder / "out").score())
    np.testing.assert_array_equal(found[0], -found[1])

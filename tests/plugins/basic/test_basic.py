"""Baselines and selectors, against plain sorts of small random inputs."""

import math
import time
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from selectmoe_basic.config import (
    LengthConfig,
    RandomConfig,
    ThresholdConfig,
    TopFractionConfig,
    TopKConfig,
)
from selectmoe_basic.scorers import LengthScorer, RandomScorer
from selectmoe_basic.selectors import Threshold, TopFraction, TopK
from selectmoe_core import Example, Job, Message, ScoreTable, Shard, ShardScores, StageError
from selectmoe_core.data.examples import content_id
from selectmoe_core.data.pool import draw, hash_ids
from selectmoe_core.data.scores import write_part

JOB = Job(seed=42)


def _example(*answers: str, source: str = "s") -> Example:
    turns = tuple(
        turn for one in answers for turn in (Message("user", "why?"), Message("assistant", one))
    )
    return Example(content_id(turns).hex(), source, turns)


def _score(scorer, examples, job=JOB, start=0):
    with scorer.open(job) as opened:
        rows = np.arange(start, start + len(examples))
        return opened.score(Shard(0, rows, examples)).score


# -------------------------------------------------------------------------------- scorers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [5, 6, 3]),
        ({"unit": "words"}, [1, 3, 1]),
        ({"direction": "short"}, [-5, -6, -3]),
        ({"unit": "words", "direction": "short"}, [-1, -3, -1]),
    ],
)
def test_length_counts_the_answers_alone(options, expected):
    examples = [_example("hello"), _example("a b", "\tc\n"), _example("né!")]
    assert _score(LengthScorer(LengthConfig(**options)), examples).tolist() == expected


def test_random_depends_on_seed_and_id_only():
    examples = [_example(str(number)) for number in range(500)]
    whole = _score(RandomScorer(RandomConfig()), examples)
    backwards = _score(RandomScorer(RandomConfig()), examples[::-1], start=77)
    np.testing.assert_array_equal(whole, backwards[::-1])
    assert (whole != _score(RandomScorer(RandomConfig()), examples, Job(seed=43))).all()
    renamed = [Example(one.id, "other", one.messages) for one in examples]
    np.testing.assert_array_equal(whole, _score(RandomScorer(RandomConfig()), renamed))


def test_random_is_uniform():
    scores = np.sort(
        _score(RandomScorer(RandomConfig()), [_example(str(number)) for number in range(4000)])
    )
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is passed once in a thousand.
    assert np.abs(scores - np.arange(4000) / 4000).max() < 1.95 / math.sqrt(4000)
    assert scores[0] >= 0
    assert scores[-1] < 1
    assert len(np.unique(scores)) == 4000


def test_random_has_nothing_to_do_with_the_cores_own_samples():
    """Both hash ids under the recipe's seed: a sample must not be the best or worst of a score."""
    examples = [_example(str(number)) for number in range(4000)]
    raw = b"".join(bytes.fromhex(one.id) for one in examples)
    words = np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    best = np.argsort(-_score(RandomScorer(RandomConfig()), examples))[:1000]
    sampled = draw(words, 1000, JOB.seed)
    assert len(np.intersect1d(best, sampled)) == pytest.approx(250, abs=75)
    assert len(np.unique(hash_ids(words, JOB.seed))) == 4000


# ------------------------------------------------------------------------------- selectors


class _Pool:
    """A score table of random rows with many ties and some skipped ones."""

    def __init__(self, folder, seed, rows=120, skip=0.1):
        random = np.random.default_rng(seed)
        self.score = random.integers(0, 9, size=rows) / 4
        self.score[random.random(rows) < skip] = np.nan
        self.names = random.choice(["b", "a", "d", "c"], size=rows, p=[0.6, 0.25, 0.1, 0.05])
        self.ids = [random.bytes(16) for _ in range(rows)]
        cuts = [0, 1, rows // 3, rows]
        for number, (start, stop) in enumerate(pairwise(cuts)):
            score = self.score[start:stop]
            reasons = ["cut" if math.isnan(one) else None for one in score]
            ids = pa.array(self.ids[start:stop], pa.binary(16))
            names = pa.array(self.names[start:stop].tolist()).dictionary_encode()
            write_part(folder, number, ids, names, ShardScores(score, reasons))
        self.table = ScoreTable.open(folder)

    def ranked(self, source=None):
        rows = [
            row
            for row in range(len(self.score))
            if not math.isnan(self.score[row]) and source in (None, self.names[row])
        ]
        return sorted(rows, key=lambda row: (-self.score[row], self.ids[row]))


@pytest.fixture(params=range(5))
def pool(request, tmp_path):
    return _Pool(tmp_path, request.param)


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.33, 0.5, 0.95, 1.0])
def test_top_fraction_is_the_head_of_a_plain_sort(pool, fraction):
    selection = TopFraction(TopFractionConfig(fraction=fraction)).select(pool.table, JOB)
    assert selection.rows.tolist() == pool.ranked()[: math.ceil(Fraction(str(fraction)) * 120)]
    assert selection.group is None


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5, 1.0])
def test_top_fraction_of_each_source(pool, fraction):
    config = TopFractionConfig(fraction=fraction, per="source")
    selection = TopFraction(config).select(pool.table, JOB)
    kept = set()
    for name in "abcd":
        of_source = int((pool.names == name).sum())
        kept.update(pool.ranked(name)[: math.ceil(Fraction(str(fraction)) * of_source)])
    assert selection.rows.tolist() == [row for row in pool.ranked() if row in kept]
    assert selection.group.to_pylist() == [pool.names[row] for row in selection.rows]


@pytest.mark.parametrize("k", [1, 13, 60])
def test_top_k_is_the_head_of_a_plain_sort(pool, k):
    assert TopK(TopKConfig(k=k)).select(pool.table, JOB).rows.tolist() == pool.ranked()[:k]


@pytest.mark.parametrize("k", [1, 13, 60])
def test_top_k_split_over_sources(pool, k):
    selection = TopK(TopKConfig(k=k, per="source")).select(pool.table, JOB)
    sizes = {name: len(pool.ranked(name)) for name in "abcd"}
    exact = {name: Fraction(k * size, sum(sizes.values())) for name, size in sizes.items()}
    quota = {name: math.floor(share) for name, share in exact.items()}
    while sum(quota.values()) < k:
        name = max(exact, key=lambda one: (exact[one] - quota[one], -ord(one)))
        quota[name] += 1
    kept = {row for name in "abcd" for row in pool.ranked(name)[: quota[name]]}
    assert selection.rows.tolist() == [row for row in pool.ranked() if row in kept]
    assert selection.group.to_pylist() == [pool.names[row] for row in selection.rows]


def test_top_k_never_keeps_fewer(pool):
    scored = len(pool.ranked())
    rows = TopK(TopKConfig(k=scored)).select(pool.table, JOB).rows
    assert len(rows) == scored
    for per in ("none", "source"):
        with pytest.raises(StageError, match=f"only {scored} of 120 examples") as caught:
            TopK(TopKConfig(k=scored + 1, per=per)).select(pool.table, JOB)
        assert caught.value.hint


@pytest.mark.parametrize("bounds", [{"min": 1.0}, {"max": 1.0}, {"min": 0.5, "max": 1.5}])
def test_threshold_keeps_what_lies_within(pool, bounds):
    rows = Threshold(ThresholdConfig(**bounds)).select(pool.table, JOB).rows.tolist()
    low, high = bounds.get("min", -math.inf), bounds.get("max", math.inf)
    assert rows == [row for row in pool.ranked() if low <= pool.score[row] <= high]


def test_threshold_from_each_sources_mean(pool):
    selection = Threshold(ThresholdConfig(min=0.1, per="source")).select(pool.table, JOB)
    mean = {name: np.mean([pool.score[row] for row in pool.ranked(name)]) for name in "abcd"}
    expected = [row for row in pool.ranked() if pool.score[row] - mean[pool.names[row]] >= 0.1]
    assert selection.rows.tolist() == expected
    assert selection.group.to_pylist() == [pool.names[row] for row in selection.rows]


def test_nothing_within_the_bounds_is_an_empty_selection(pool):
    for per in ("none", "source"):
        config = ThresholdConfig(min=99.0, per=per)
        assert len(Threshold(config).select(pool.table, JOB).rows) == 0


def test_nothing_is_selected_of_a_pool_without_scores(tmp_path):
    pool = _Pool(tmp_path, 0, skip=1.0)
    for per in ("none", "source"):
        assert not len(TopFraction(TopFractionConfig(per=per)).select(pool.table, JOB).rows)


def test_two_million_rows_take_seconds_and_little_memory(tmp_path):
    rows, part = 2_000_000, 200_000
    random = np.random.default_rng(1)
    for number in range(rows // part):
        ids = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), part, [None, pa.py_buffer(random.bytes(16 * part))]
        )
        codes = pa.array(random.integers(0, 5, part).astype(np.int32))
        names = pa.DictionaryArray.from_arrays(codes, pa.array(list("abcde")))
        write_part(tmp_path, number, ids, names, ShardScores(random.integers(0, 99, part) / 7))
    table = ScoreTable.open(tmp_path)
    score, words = table.score(), table.ids()
    plain = np.lexsort((words[:, 1], words[:, 0], -score))
    tracemalloc.start()
    start = time.process_time()
    selection = TopFraction(TopFractionConfig(fraction=0.05)).select(table, JOB)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(selection.rows, plain[:100_000])
    assert seconds < 20
    assert peak < 60 * rows, "6 GiB for 100 million rows"


# --------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (ThresholdConfig, {}, "set 'min', 'max' or both"),
        (ThresholdConfig, {"min": 2, "max": 1}, "is above"),
        (ThresholdConfig, {"min": float("nan")}, "finite"),
        (TopFractionConfig, {"fraction": 0}, "greater than 0"),
        (TopFractionConfig, {"fraction": 1.5}, "less than or equal to 1"),
        (TopFractionConfig, {"per": "sources"}, "'none' or 'source'"),
        (TopKConfig, {"k": 0}, "greater than 0"),
        (LengthConfig, {"unit": "tokens"}, "'characters' or 'words'"),
        (RandomConfig, {"seed": 3}, "Extra inputs"),
    ],
)
def test_options_reject_nonsense(config, options, message):
    with pytest.raises(ValidationError, match=message):
        config(**options)

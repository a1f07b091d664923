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
from selectmoe_core.selecting import best_first, ranking, share_of, top_of_groups

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


# -------------------------------------------------------------------------------- ranking


def top(values, count, ids):
    return top_of_groups(values, np.zeros(len(values), dtype=np.int32), np.array([count]), ids)


@pytest.mark.parametrize("trial", range(60))
def test_top_and_order_equal_a_plain_sort(trial):
    random = np.random.default_rng(trial)
    rows = int(random.integers(1, 60))
    values = random.integers(0, 1 + trial % 7, size=rows).astype(float)
    # Few distinct words: halves of ids collide, whole ids do not.
    pairs = random.permutation(64)[:rows]
    words = np.stack([pairs // 8, pairs % 8], axis=1).astype(np.uint64)
    plain = sorted(range(rows), key=lambda row: (-values[row], *words[row].tolist()))
    assert best_first(values, lambda places: words[places]).tolist() == plain
    for count in range(rows + 2):
        found = top(values, count, lambda places: words[places])
        assert found.tolist() == sorted(plain[:count])


@pytest.mark.parametrize("trial", range(60))
def test_top_of_each_group_equals_plain_sorts(trial, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK", 7)
    random = np.random.default_rng()
    rows, groups = int(random.integers(0, 90)), int(random.integers(1, 6))
    values = random.integers(0, 1 + trial % 7, size=rows).astype(float)
    values[random.random(rows) < 0.1] = np.nan
    codes = random.integers(0, groups, size=rows).astype(np.int32)
    counts = random.integers(0, 30, size=groups)
    # Ids that agree in their first 64 bits, or in all that fits beside a group.
    pairs = random.permutation(128)[:rows]
    words = np.stack([pairs // 8, pairs % 8], axis=1).astype(np.uint64)
    kept = []
    for group, count in enumerate(counts):
        own = [row for row in range(rows) if codes[row] == group and not math.isnan(values[row])]
        kept += sorted(own, key=lambda row: (-values[row], *words[row].tolist()))[:count]
    found = top_of_groups(values, codes, counts, lambda places: words[places])
    assert found.tolist() == sorted(kept)


def test_equal_values_are_ordered_by_whole_ids():
    random = np.random.default_rng()
    for trial in range(40):
        values = random.integers(0, 50, size=2000).astype(float)
        words = random.integers(0, 1 << 63, size=(2000, 2)).astype(np.uint64)
        if trial % 2:  # high words that differ in few bits
            words[:, 0] &= np.uint64((1 << 64) - (1 << int(random.integers(1, 62))))
        plain = np.lexsort((words[:, 1], words[:, 0], -values))
        assert best_first(values, words.__getitem__).tolist() == plain.tolist()


def test_ids_are_read_for_ties_only():
    asked = []

    def ids(places):
        asked.append(places.tolist())
        return np.stack([places, places], axis=1).astype(np.uint64)

    values = np.array([3.0, 1.0, 2.0, 2.0, 0.0, 2.0])
    assert top(values, 4, ids).tolist() == [0, 2, 3, 5]
    assert not asked
    assert top(values, 2, ids).tolist() == [0, 2]
    assert asked == [[2, 3, 5]]
    assert best_first(values, ids).tolist() == [0, 2, 3, 5, 1, 4]
    assert asked == [[2, 3, 5]] * 2
    assert best_first(values[[0, 1, 2]], ids).tolist() == [0, 2, 1]
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [(0.05, 100, 5), (0.07, 100, 7), (0.05, 101, 6), (0.05, 1, 1), (1.0, 9, 9), (1e-9, 10**8, 1)],
)
def test_a_share_is_rounded_up_exactly(fraction, count, expected):
    assert share_of(fraction, count) == expected
    assert expected == math.ceil(Fraction(str(fraction)) * count)


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
    start = time.perf_counter()
    selection = TopFraction(TopFractionConfig(fraction=0.05)).select(table, JOB)
    seconds = time.perf_counter() - start
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

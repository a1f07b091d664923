"""The best of many scores, against plain sorts of small random inputs."""

import math
from fractions import Fraction

import numpy as np
import pytest

from selectmoe_core.selecting import best_first, ranking, share_of, top_of_groups


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

"""Runs of words found from bytes, beside a plain comparison of words."""

import numpy as np
import pytest
from filter_pools import conversation

from selectmoe_core.data.pool_writer import build_pool
from selectmoe_filters import openings
from selectmoe_filters.openings import Openings
from selectmoe_filters.texts import words

PIECES = [
    *("Ab", "c1", "straße", "ﬁn", "İx", "_", "--", "?", "水", "の", "x_y", "9", "e\u0301a", "Ω"),
    *("a", "b", "'s", "\x1f", "\n", "…", "don't", "A.B."),
]


def text(random, count):
    return " ".join(random.choice(PIECES, size=count).tolist())


def plain(pool, runs, size):
    found = []
    for row, example in enumerate(pool.examples()):
        own = [words(message.content) for message in example.messages]
        if any(tuple(w[s : s + size]) in runs for w in own for s in range(len(w) - size + 1)):
            found.append(row)
    return found


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_rows_are_those_that_hold_a_run(size, tmp_path, monkeypatch):
    monkeypatch.setattr(openings, "BYTES", 100)
    random = np.random.default_rng()
    asked = [words(text(random, 12)) for _ in range(20)]
    rows = []
    for n in range(400):
        turns = [f"{n} {text(random, random.integers(0, 30))}" for _ in range(2)]
        if n % 10 == 0:
            turns[n % 2] += " ".join(asked[n // 20])
        rows.append(conversation(*turns))
    rows.append(conversation(text(random, 400), "-"))  # longer than what is looked at together
    pool = build_pool(rows, tmp_path)
    runs = {tuple(own[:size]) for own in asked if len(own) >= size}
    finder = Openings(runs, size)
    found, start = [], 0
    for batch in pool.batches():
        found += (start + finder.rows(batch)).tolist()
        start += len(batch)
    expected = plain(pool, runs, size)
    assert len(expected) > 5
    assert found == expected


def test_a_run_does_not_cross_messages_and_nothing_is_found_of_nothing(tmp_path):
    rows = [conversation("one two", "three four"), conversation("ONE, two (three)", "four")]
    pool = build_pool(rows, tmp_path)
    batch = next(pool.batches())
    assert Openings([("one", "two", "three")], 3).rows(batch).tolist() == [1]
    assert Openings([], 3).rows(batch).tolist() == []

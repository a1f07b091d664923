"""Choosing within sources: what one does not give falls to the others."""

import numpy as np
from vector_pools import table_beside

from selectmoe_core.selecting import Chosen, NumberConfig, choose_divided
from selectmoe_core.selecting.dividing import _by_code


def test_what_a_source_does_not_give_falls_to_the_others_and_is_reported(tmp_path):
    table, plain, _ = table_beside(tmp_path, np.ones((200, 2)), np.random.default_rng())
    asked = []

    def at_most_two_of_a(rows, count):
        asked.append(count)
        most = 2 if plain[rows[0]]["source"] == "a" else count
        own = rows[: min(most, count)]
        return Chosen(own, np.zeros(len(own), dtype=np.int64), {}, own * 10)

    found = choose_divided(table, NumberConfig(k=30, per="source"), at_most_two_of_a)
    groups = found.group.to_pylist()
    assert groups.count("a") == 2
    assert len(found.rows) == 30
    assert any(text.startswith("a has 2 of the ") for text in found.warnings)
    np.testing.assert_array_equal(found.cluster, found.rows * 10)
    values = [plain[row]["score"] for row in found.rows]
    assert values == sorted(values, reverse=True)  # one turn: ordered by score


def test_the_rows_of_each_source_keep_their_order():
    random = np.random.default_rng()
    codes = random.integers(0, 7, size=300)
    codes[codes == 3] = 4  # a source without rows
    rows = random.permutation(300)
    found = _by_code(rows, codes, 8)
    assert [own.tolist() for own in found] == [rows[codes == code].tolist() for code in range(8)]

"""Final scores: each part is replaced, and rows may lose their score with a reason."""

import numpy as np
import pyarrow as pa
import pytest

from selectmoe_core.data.final_scores import replace_scores
from selectmoe_core.data.scores import ScoreTable, ShardScores, write_part
from selectmoe_core.errors import StageError


@pytest.fixture
def table(tmp_path) -> ScoreTable:
    """Two parts of three rows; row 1 was skipped."""
    for number, skipped in enumerate(([None, "cut", None], [None, None, None])):
        ids = pa.array([bytes([number, row] * 8) for row in range(3)], pa.binary(16))
        values = np.where([why is not None for why in skipped], np.nan, 1.0 + np.arange(3))
        scores = ShardScores(values, skipped, {"loss": 10.0 + np.arange(3)})
        write_part(tmp_path, number, ids, pa.array(["s"] * 3).dictionary_encode(), scores)
    return ScoreTable.open(tmp_path)


def reasons(table):
    return table.column("skipped").cast(pa.string()).to_pylist()


def test_scores_are_replaced_and_the_other_columns_stay(table):
    replace_scores(table, np.array([5, np.nan, 6, 7, 8, 9]))
    np.testing.assert_array_equal(table.score(), [5, np.nan, 6, 7, 8, 9])
    assert table.detail("loss").tolist() == [10.0, 11.0, 12.0] * 2
    assert reasons(table) == [None, "cut", None, None, None, None]


def test_rows_that_get_no_score_after_all_have_their_reason_and_twice_is_the_same(table):
    score = np.array([5, np.nan, np.nan, 7, np.nan, 9])
    skipped = [None, None, "too few", None, "too few", None]
    for _ in range(2):  # a resumed stage finishes again
        replace_scores(table, score, skipped)
        np.testing.assert_array_equal(table.score(), score)
        assert reasons(table) == [None, "cut", "too few", None, "too few", None]
        assert table.skipped() == {"cut": 1, "too few": 2}


@pytest.mark.parametrize(
    ("score", "skipped"),
    [
        ([5, np.nan, np.nan, 7, 8, 9], None),
        ([5, 1, 6, 7, 8, 9], None),
        ([5, np.nan, 6, 7, 8, 9], [None, None, "why", None, None, None]),
        ([5, np.nan, np.nan, 7, 8, 9], [None] * 6),
        ([5, 6], None),
    ],
)
def test_a_score_without_a_number_or_a_reason_is_refused(table, score, skipped):
    before = table.score()
    with pytest.raises(StageError, match="finished 6 rows"):
        replace_scores(table, np.array(score, dtype=float), skipped)
    np.testing.assert_array_equal(table.score(), before)

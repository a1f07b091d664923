"""Scores: what a scorer may not hand over, and what comes back from disk."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selectmoe_core.data.scores import (
    ScoreTable,
    ShardScores,
    check_scores,
    features_path,
    part_path,
    write_part,
)
from selectmoe_core.errors import StageError
from selectmoe_core.store import replacing


def _ids(random: np.random.Generator, rows: int) -> pa.Array:
    return pa.array([random.bytes(16) for _ in range(rows)], pa.binary(16))


def _sources(names: list[str]) -> pa.DictionaryArray:
    return pa.array(names, pa.string()).dictionary_encode()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng()


# ---------------------------------------------------------------------------- check_scores


def test_finite_scores_and_reasoned_gaps_pass():
    check_scores(ShardScores(np.array([1.0, -2.0])), 2)
    check_scores(ShardScores(np.array([1, 2])), 2)
    check_scores(ShardScores(np.array([1.0, np.nan]), [None, "cut off"]), 2)
    check_scores(ShardScores(np.array([1.0, np.nan]), np.array([None, "cut off"])), 2)
    check_scores(ShardScores(np.empty(0)), 0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (ShardScores(np.zeros(3)), r"shape \(3,\) for 2 examples"),
        (ShardScores(np.zeros((2, 1))), r"shape \(2, 1\)"),
        (ShardScores(np.array([0.0, np.nan])), "1 of 2 examples got no finite score.* nan"),
        (ShardScores(np.array([-np.inf, np.nan])), "2 of 2 .* -inf"),
        (ShardScores(np.array([0.0, np.nan]), [None, ""]), "no finite score and no reason"),
        (ShardScores(np.array([0.0, np.nan]), ["x", None]), "no finite score and no reason"),
        (ShardScores(np.zeros(2), ["x"]), "1 reasons for 2 examples"),
        (ShardScores(np.zeros(2), details={"d": np.zeros(3)}), r"'d' of shape \(3,\)"),
        (ShardScores(np.zeros(2), details={"d": np.zeros((2, 1, 1))}), "'d' of shape"),
        (ShardScores(np.zeros(2), details={"d": np.zeros((2, 0))}), "'d' of shape"),
        (
            ShardScores(np.zeros(2), details={"score": np.zeros(2)}),
            "the core uses that column name",
        ),
        (ShardScores(np.zeros(2), features=np.zeros(2)), r"features of shape \(2,\)"),
        (ShardScores(np.zeros(2), features=np.zeros((1, 4))), r"features of shape \(1, 4\)"),
        (ShardScores(np.zeros(2), features=np.full((2, 1), 1e5)), "2 examples are not finite"),
    ],
)
def test_what_a_scorer_may_not_hand_over(scores, message):
    with pytest.raises(StageError, match=message):
        check_scores(scores, 2)


def test_a_part_that_fails_the_check_is_not_written(tmp_path, random):
    with pytest.raises(StageError):
        write_part(tmp_path, 0, _ids(random, 2), _sources(["a", "b"]), ShardScores(np.zeros(3)))
    assert not list(tmp_path.rglob("part-*"))


# ------------------------------------------------------------------------------ round trip


class _Written:
    """Parts of several sizes, and what was put in."""

    def __init__(self, folder, random):
        self.sizes = [5, 1, 17, 8]
        total = sum(self.sizes)
        self.ids = _ids(random, total)
        names = np.array(["flan", "cot", "dolly é", "oasst1"])
        # Every part meets the sources in another order, and some only later.
        self.names = [names[random.integers(0, 1 + n % 4)] for n in range(total)]
        self.score = random.normal(size=total)
        self.reasons = [None] * total
        for row, reason in {2: "cut", 5: "empty", 9: "cut"}.items():
            self.reasons[row], self.score[row] = reason, np.nan
        self.loss = random.normal(size=total)
        self.wide = random.normal(size=(total, 3)).astype(np.float32)
        self.vectors = random.normal(size=(total, 6))
        start = 0
        for number, size in enumerate(self.sizes):
            span = slice(start, start + size)
            scores = ShardScores(
                self.score[span],
                self.reasons[span] if any(self.reasons[span]) else None,
                {"loss": self.loss[span], "layers": self.wide[span]},
                self.vectors[span],
            )
            sources = _sources([str(name) for name in self.names[span]])
            write_part(folder, number, self.ids[start : start + size], sources, scores)
            start += size
        self.table = ScoreTable.open(folder)


@pytest.fixture
def written(tmp_path, random) -> _Written:
    return _Written(tmp_path, random)


def test_scores_come_back_row_for_row(written):
    assert len(written.table) == 31
    np.testing.assert_array_equal(written.table.score(), written.score)
    assert written.table.score().dtype == np.float64


def test_ids_come_back_as_big_endian_words_whose_order_is_the_bytes_order(written):
    raw = written.ids.to_pylist()
    words = written.table.ids()
    assert [
        int(high).to_bytes(8, "big") + int(low).to_bytes(8, "big") for high, low in words
    ] == raw
    assert np.lexsort((words[:, 1], words[:, 0])).tolist() == sorted(
        range(len(raw)), key=raw.__getitem__
    )


@pytest.mark.parametrize("rows", [[], [0], [4, 5, 6, 22, 23, 30], list(range(31)), [30]])
def test_ids_of_some_rows(written, rows):
    rows = np.array(rows, dtype=np.int64)
    np.testing.assert_array_equal(written.table.ids(rows), written.table.ids()[rows])


def test_sources_have_one_code_over_all_parts(written):
    codes, names = written.table.sources()
    assert [names[code] for code in codes] == [str(name) for name in written.names]
    assert len(set(names)) == len(names)


def test_plain_string_sources_read_the_same(tmp_path, random):
    for number, names in enumerate((["b", "a", "b"], ["c", "a"])):
        plain = pa.array(names, pa.string())
        write_part(
            tmp_path,
            number,
            _ids(random, len(names)),
            plain,
            ShardScores(np.arange(9.0)[: len(names)]),
        )
    codes, names = ScoreTable.open(tmp_path).sources()
    assert [names[code] for code in codes] == ["b", "a", "b", "c", "a"]


def test_skipped_rows_are_counted_by_reason(written):
    assert written.table.skipped() == {"cut": 2, "empty": 1}
    reasons = written.table.column("skipped").cast(pa.string()).to_pylist()
    assert reasons == written.reasons


def test_a_skipped_row_loses_the_number_it_was_given(tmp_path, random):
    scores = ShardScores(np.array([1.0, 7.0, np.inf]), [None, "cut", "cut"])
    write_part(tmp_path, 0, _ids(random, 3), _sources(["a"] * 3), scores)
    np.testing.assert_array_equal(ScoreTable.open(tmp_path).score(), [1.0, np.nan, np.nan])


def test_details_of_any_width(written):
    assert set(written.table.details) == {"loss", "layers"}
    np.testing.assert_array_equal(written.table.detail("loss"), written.loss)
    np.testing.assert_array_equal(written.table.detail("layers"), written.wide)


@pytest.mark.parametrize("values", [np.arange(4), np.array([True, False, True, False])])
def test_details_keep_their_type(tmp_path, random, values):
    scores = ShardScores(np.arange(4.0), details={"d": values})
    write_part(tmp_path, 0, _ids(random, 4), _sources(["a"] * 4), scores)
    found = ScoreTable.open(tmp_path).detail("d")
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_features_come_back_as_float16_part_by_part(written):
    parts = written.table.features()
    assert [len(part) for part in parts] == written.sizes
    assert all(isinstance(part, np.memmap) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), written.vectors.astype(np.float16))


def test_scores_without_features_say_so(tmp_path, random):
    write_part(tmp_path, 0, _ids(random, 1), _sources(["a"]), ShardScores(np.zeros(1)))
    with pytest.raises(StageError, match="have no features"):
        ScoreTable.open(tmp_path).features()


# -------------------------------------------------------------------------------- the parts


def test_parts_stand_in_the_order_of_their_numbers(tmp_path, random):
    numbers = [7, 99_999, 100_000, 3]
    for number in numbers:
        scores = ShardScores(np.array([float(number)]))
        write_part(tmp_path, number, _ids(random, 1), _sources(["a"]), scores)
    assert ScoreTable.open(tmp_path).score().tolist() == sorted(map(float, numbers))


def test_an_unfinished_part_is_not_seen(tmp_path, random):
    write_part(tmp_path, 0, _ids(random, 1), _sources(["a"]), ShardScores(np.zeros(1)))
    whole = part_path(tmp_path, 0)
    with suppress(KeyboardInterrupt), replacing(part_path(tmp_path, 1), alone=True) as temporary:
        temporary.write_bytes(b"half")
        assert len(ScoreTable.open(tmp_path)) == 1
        raise KeyboardInterrupt
    assert len(ScoreTable.open(tmp_path)) == 1
    assert list(whole.parent.iterdir()) == [whole]


def test_features_are_there_before_the_part_counts_as_done(tmp_path, random, monkeypatch):
    def stop(*_args, **_options):
        assert features_path(tmp_path, 0).is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", stop)
    scores = ShardScores(np.zeros(1), features=np.zeros((1, 2)))
    with pytest.raises(KeyboardInterrupt):
        write_part(tmp_path, 0, _ids(random, 1), _sources(["a"]), scores)
    assert not part_path(tmp_path, 0).is_file()


def test_no_parts_is_an_error(tmp_path):
    with pytest.raises(StageError, match="no scores in"):
        ScoreTable.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 40, -20])
def test_a_damaged_part_is_named(written, keep):
    path = written.table.parts[2]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StageError, match=r"part-00002\.parquet cannot be read") as caught:
        ScoreTable.open(path.parents[1]).score()
    assert "--fresh score" in caught.value.hint


def test_a_part_without_a_column_is_named(written, tmp_path, random):
    write_part(tmp_path, 4, _ids(random, 1), _sources(["a"]), ShardScores(np.zeros(1)))
    with pytest.raises(StageError, match=r"part-00004\.parquet has no column 'loss'"):
        ScoreTable.open(tmp_path).detail("loss")


def test_reading_one_column_takes_the_memory_of_that_column(tmp_path, random):
    rows, parts = 20_000, 10
    for number in range(parts):
        wide = random.normal(size=(rows, 16)).astype(np.float32)
        scores = ShardScores(random.normal(size=rows), details={"layers": wide}, features=wide)
        write_part(tmp_path, number, _ids(random, rows), _sources(["a"] * rows), scores)
    table = ScoreTable.open(tmp_path)
    len(table)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    score = table.score()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert score.nbytes <= peak < 1.2 * score.nbytes
    del score
    assert pa.total_allocated_bytes() - before < rows * 8 * 2

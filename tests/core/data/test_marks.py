"""Marks of filters: written, read, checked, and applied to scores beside a plain reference."""

import numpy as np
import pyarrow as pa
import pytest

from selectmoe_core.data.examples import Message, RawExample
from selectmoe_core.data.marks import (
    MARKS,
    ONE_IS_BETTER,
    FilteredTable,
    Marks,
    apply_marks,
    read_marks,
    write_marks,
)
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.questions import QUESTIONS, Question, read_questions, write_questions
from selectmoe_core.data.scores import ScoreTable, ShardScores, write_part
from selectmoe_core.errors import StageError

ROWS = 60


def scores_in(folder, values) -> ScoreTable:
    rows = [
        RawExample(f"s{n % 3}", (Message("user", f"q {n}"), Message("assistant", f"a {n}")))
        for n in range(len(values))
    ]
    (folder / "pool").mkdir(parents=True)
    pool = build_pool(rows, folder / "pool")
    ids = pa.concat_arrays([batch.column("id") for batch in pool.batches()])
    skipped = ["cut" if np.isnan(value) else None for value in values]
    write_part(folder, 0, ids, pool.source_names(), ShardScores(np.array(values), skipped))
    return ScoreTable.open(folder)


def plainly(values, ids, filters):
    """Which filter and reason leave out each row, by loops and sorted lists."""
    out = {}
    for name, marks in filters.items():
        for row, reason in zip(marks.rows.tolist(), marks.texts().to_pylist(), strict=True):
            if reason is not None:
                out.setdefault(row, (name, reason))
    for name, marks in filters.items():
        groups = {}
        for row, number in zip(marks.rows.tolist(), marks.numbers.tolist(), strict=True):
            if number >= 0 and row not in out and not np.isnan(values[row]):
                groups.setdefault(number, []).append(row)
        for rows in groups.values():
            for row in sorted(rows, key=lambda row: (-values[row], ids[row]))[1:]:
                out[row] = (name, ONE_IS_BETTER)
    return out


def random_marks(random):
    rows = random.permutation(ROWS)[: random.integers(1, ROWS)]
    with_group = random.random(len(rows)) < 0.7
    reasons = [None if grouped else f"r{random.integers(3)}" for grouped in with_group]
    groups = np.where(with_group, random.integers(0, 8, size=len(rows)), -1)
    return Marks(rows, reasons, groups)


def test_what_is_left_out_equals_a_plain_reference(tmp_path):
    random = np.random.default_rng()
    for trial in range(20):
        values = random.integers(0, 5, size=ROWS).astype(float)  # many ties
        values[random.random(ROWS) < 0.1] = np.nan
        table = scores_in(tmp_path / str(trial), values)
        ids = [tuple(words) for words in table.ids().tolist()]
        filters = {name: random_marks(random) for name in "ab"}
        left = apply_marks(table, filters)
        expected = plainly(values, ids, filters)
        assert {row: left.reason(row) for row in left.rows.tolist()} == expected
        codes, names = table.sources()
        counted = {}
        for row, (owner, reason) in expected.items():
            own = counted.setdefault(names[codes[row]], {})
            own[f"{owner}: {reason}"] = own.get(f"{owner}: {reason}", 0) + 1
        assert left.counts(codes, names) == counted
        seen = FilteredTable(table.parts, left.rows).score()
        gone = np.isin(np.arange(ROWS), left.rows)
        np.testing.assert_array_equal(seen, np.where(gone, np.nan, values))


def test_marks_are_read_as_they_were_written(tmp_path):
    marks = Marks(np.array([5, 2, 9]), [None, "too short", None], np.array([3, -1, 3]))
    write_marks(tmp_path, marks)
    found = read_marks(tmp_path)
    assert found.rows.tolist() == [2, 5, 9]
    assert found.texts().to_pylist() == ["too short", None, None]
    assert found.numbers.tolist() == [-1, 3, 3]
    write_marks(tmp_path, Marks.left_out(np.empty(0), []))
    assert len(read_marks(tmp_path).rows) == 0
    (tmp_path / MARKS).write_bytes(b"PAR1")
    with pytest.raises(StageError, match="missing or damaged") as error:
        read_marks(tmp_path)
    assert "--fresh filter" in error.value.hint


@pytest.mark.parametrize(
    ("marks", "what"),
    [
        (Marks.left_out(np.array([10]), ["x"]), "outside the pool"),
        (Marks.left_out(np.array([-1]), ["x"]), "outside the pool"),
        (Marks.left_out(np.array([1, 1]), ["x", "y"]), "marked twice"),
        (Marks.left_out(np.array([1, 2]), ["x"]), "'reasons' has 1 entries for 2 rows"),
        (Marks(np.array([1]), [None]), "either a reason or a group"),
        (Marks(np.array([1]), ["x"], np.array([0])), "either a reason or a group"),
        (Marks(np.array([1.5]), ["x"]), "must be integers"),
        (Marks(np.array([1]), [None], np.array([0, 1])), "'groups' has 2 entries"),
    ],
)
def test_marks_that_cannot_be_used_say_why(marks, what):
    assert what in marks.problem(10)
    assert Marks.left_out(np.array([0, 9]), ["x", "y"]).problem(10) is None


def test_questions_are_read_as_they_were_written(tmp_path):
    asked = [Question("sums", f"What is {n}?", ("é",) * (n % 3)) for n in range(9000)]
    assert write_questions(tmp_path, iter(asked)) == {"sums": 9000}
    assert list(read_questions(tmp_path)) == asked
    (tmp_path / QUESTIONS).unlink()
    with pytest.raises(StageError, match="missing or damaged"):
        list(read_questions(tmp_path))

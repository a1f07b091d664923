"""What ``select`` writes, against plain lists; and work done ahead."""

import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selectmoe_core.data.examples import Message, RawExample
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.scores import ScoreTable, ShardScores, write_part
from selectmoe_core.data.selection import Selection, selected_rows
from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.runtime.prefetch import AHEAD, ahead
from selectmoe_core.stages import select

ROWS = 700


class Chosen:
    """A selector that keeps what it is told."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def select(self, scores, job):
        return self.selection


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    random = np.random.default_rng()
    rows = [
        RawExample(
            f"source {random.integers(4)}",
            (Message("user", f"n {number} é"), Message("assistant", "a" * number)),
            f"f:{number}",
            f"id {number}",
        )
        for number in range(1, ROWS + 1)
    ]
    return build_pool(rows, tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def table(pool, tmp_path_factory) -> ScoreTable:
    folder = tmp_path_factory.mktemp("scores")
    random = np.random.default_rng()
    for number, start in enumerate(range(0, ROWS, 300)):
        stop = min(start + 300, ROWS)
        ids = pa.concat_arrays([batch.column("id") for batch in pool.batches(start, stop)])
        score = random.normal(size=stop - start)
        skipped = [None] * (stop - start)
        if not number:
            skipped[5] = "cut"
        names = pool.source_names(start, stop)
        write_part(folder, number, ids, names, ShardScores(score, skipped))
    return ScoreTable.open(folder)


def kept_rows(count):
    rows = np.random.default_rng().permutation(ROWS)
    return rows[rows != 5][:count]


@pytest.mark.parametrize("arrow", [True, False], ids=["arrow", "list"])
def test_the_table_names_every_kept_row(pool, table, tmp_path, monkeypatch, arrow):
    monkeypatch.setattr(select, "GROUP", 64)
    rows = kept_rows(200)
    groups = [f"group {row % 3}" for row in rows]
    given = pa.array(groups).dictionary_encode() if arrow else groups
    found, facts = select.choose(Chosen(Selection(rows, given)), table, tmp_path, Job(seed=1))
    assert found.tolist() == rows.tolist()
    written = pq.read_table(tmp_path / "selection.parquet").to_pydict()
    examples = list(pool.examples())
    assert written["row"] == rows.tolist()
    assert [one.hex() for one in written["id"]] == [examples[row].id for row in rows]
    assert written["source"] == [examples[row].source for row in rows]
    assert written["rank"] == list(range(1, 201))
    assert written["score"] == table.score()[rows].tolist()
    assert written["group"] == groups
    assert written["reason"] == [None] * 200
    assert facts["kept"] == 200
    assert facts["of"] == ROWS
    for name, of in facts["sources"].items():
        assert of["of"] == sum(one.source == name for one in examples)
        assert of["kept"] == sum(examples[row].source == name for row in rows)
    assert selected_rows(tmp_path).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no example of 700 was selected"),
        ([ROWS], "outside"),
        ([-1], "outside"),
        ([1, 2, 1], "twice"),
        ([5], "no score"),
    ],
)
def test_a_wrong_choice_is_refused(table, tmp_path, rows, message):
    with pytest.raises(StageError, match=message):
        select.choose(Chosen(Selection(np.array(rows))), table, tmp_path, Job(seed=1))
    assert not (tmp_path / "selection.parquet").exists()


def test_kept_examples_are_written_in_full(pool, table, tmp_path):
    rows, told = kept_rows(600), []
    select.write_rows(tmp_path, pool, rows, table.score(), told.append)
    examples = list(pool.examples())
    lines = (tmp_path / "selected_data.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(told) == 600
    for rank, (row, line) in enumerate(zip(rows.tolist(), lines, strict=True), start=1):
        assert json.loads(line) == {
            "id": examples[row].id,
            "source": examples[row].source,
            "messages": [{"role": m.role, "content": m.content} for m in examples[row].messages],
            "score": table.score()[row],
            "rank": rank,
            "meta": pool.meta(row),
        }


def test_weights_are_written_where_they_say_something(tmp_path):
    turns = (
        Message("user", "q"),
        Message("assistant", "a", trained=False),
        Message("user", "r"),
        Message("assistant", "b"),
    )
    (tmp_path / "pool").mkdir()
    pool = build_pool([RawExample("s", turns)], tmp_path / "pool")
    select.write_rows(tmp_path, pool, np.array([0]), np.array([1.0]), lambda _: None)
    row = json.loads((tmp_path / "selected_data.jsonl").read_text(encoding="utf-8"))
    assert [turn.get("weight") for turn in row["messages"]] == [None, 0, None, None]


def test_rows_are_taken_whole_and_in_order(pool):
    rows = np.random.default_rng().integers(0, ROWS, size=900)
    every = pa.Table.from_batches(pool.batches()).to_pylist()
    assert pool.table(rows).to_pylist() == [every[row] for row in rows]
    assert pool.table([]).num_rows == 0
    with pytest.raises(IndexError):
        next(pool.take([*range(ROWS), ROWS]))


def test_columns_read_ahead_are_those_of_the_parts(table):
    parts = [pq.read_table(path) for path in table.parts]
    plain = pa.concat_tables(parts)
    np.testing.assert_array_equal(table.score(), plain["score"].to_numpy())
    codes, names = table.sources()
    assert [names[code] for code in codes] == plain["source"].to_pylist()
    rows = np.sort(kept_rows(50))
    for wanted in (None, rows, rows[rows < 300], rows[:0]):
        ids = plain["id"].to_pylist()
        own = ids if wanted is None else [ids[row] for row in wanted]
        assert table.ids(wanted).astype(">u8").tobytes() == b"".join(own)


def test_work_ahead_keeps_the_order_and_holds_little():
    done, lock = [], threading.Lock()

    def work(number):
        with lock:
            done.append(number)
        return number * 3

    for count in (0, 1, AHEAD, 40):
        done.clear()
        for number, found in enumerate(ahead(work, list(range(count)))):
            assert found == 3 * number
            assert len(done) <= number + 1 + AHEAD
        assert sorted(done) == list(range(count))


def test_a_failure_ahead_is_raised_in_its_turn():
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    coming = ahead(work, list(range(9)))
    assert [next(coming) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(coming)

"""Any rows at all: every one comes out of a reader and out of a pool, as an example or a reject.

``SELECTMOE_FUZZ`` says how many examples of each test are tried; left out, a few.
"""

import csv
import io
import json
import os
from copy import deepcopy

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_files import chat, read, write

from selectmoe_core import DataError, RawExample, Reject
from selectmoe_core.data.pool_writer import build_pool

FUZZ = settings(
    max_examples=int(os.environ.get("SELECTMOE_FUZZ", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    derandomize="SELECTMOE_FUZZ" not in os.environ,
)
GOOD = [
    chat("q", "a", "r", "b", dataset="d", id=1, label="ok"),
    {"messages": json.dumps(chat("q", "a")["messages"]), "system": "s"},
    {"instruction": "q", "input": "i", "output": "a", "history": [["x", "y"]], "system": "s"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"prompt": "q", "completion": "a", "source": "s", "category": "c"},
    {"prompt": chat("q")["messages"], "completion": "a", "tools": []},
    {"id": "0", "source": "s", "messages": chat("q", "a")["messages"], "score": 1.5, "rank": 1,
     "meta": {"original_id": "1", "where": "f:1", "label": ""}},
]  # fmt: skip
KEYS = st.sampled_from(
    [
        *sorted({key for row in GOOD for key in row}),
        *("role", "content", "from", "value", "weight", "train", "tool_calls"),
        *("reasoning_content", "text", "type", "tools", "", "\ud83d", "x" * 300),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["user", "assistant", "system", "tool", "[", '[{"role": 1}]', "\ud800", "x"])
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3), max_leaves=8
)


def places(value, path=()):
    """Yield the path of every value within a value."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


@st.composite
def mutants(draw):
    """A good row with some of its values changed, left out, doubled or renamed."""
    row = deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from([path for path in places(row) if path] or [("x",)]))
        inner = row
        for key in way:
            inner = inner[key]
        change = draw(st.sampled_from(["set", "drop", "rename", "double"]))
        if change == "set" or last not in (inner if isinstance(inner, dict) else range(len(inner))):
            inner[last] = draw(VALUES)
        elif change == "drop":
            del inner[last]
        elif isinstance(inner, dict):
            inner[draw(KEYS)] = inner.pop(last) if change == "rename" else inner[last]
        else:
            inner.append(deepcopy(inner[last]))
    return row


def assert_whole(found, count, folder):
    """Every row came out once; the pool takes them all, and loses none."""
    assert len(found) == count
    for row in found:
        assert isinstance(row, RawExample | Reject)
        if isinstance(row, Reject):
            assert row.reason
            assert len(row.reason) < 1000
    folder.mkdir(exist_ok=True)
    try:
        pool = build_pool(found, folder, on_reject="skip")
    except DataError as error:
        assert "the pool is empty" in str(error)  # noqa: PT017
        return
    counts = pool.sources.values()
    assert sum(of.examples + of.rejected + of.duplicates for of in counts) == count
    assert len(pool) == sum(of.examples for of in counts)
    assert len(list(pool.examples())) == len(pool)
    assert len(list(pool.rejects())) == sum(of.rejected for of in counts)


@FUZZ
@given(st.lists(VALUES | mutants(), min_size=1, max_size=12))
def test_lines_of_anything(tmp_path, rows):
    lines = [json.dumps(row).encode() + b"\n" for row in [GOOD[0], *rows]]
    path = write(tmp_path / "f.jsonl", *lines)
    assert_whole(read("jsonl", path=str(path)), len(lines), tmp_path / "pool")


@FUZZ
@given(st.lists(VALUES | mutants(), min_size=1, max_size=12))
def test_arrays_of_anything(tmp_path, rows):
    path = write(tmp_path / "f.json", json.dumps([GOOD[3], *rows]).encode())
    assert_whole(read("jsonl", path=str(path)), len(rows) + 1, tmp_path / "pool")


@FUZZ
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=12))
def test_lines_of_any_bytes(tmp_path, lines):
    # The first line is JSON, so that the file is not known as another kind by its content.
    lines = [json.dumps(GOOD[0]).encode(), *(one.replace(b"\0", b"") for one in lines)]
    path = write(tmp_path / "f.jsonl", b"\n".join(lines))
    count = sum(bool(one) and not one.isspace() for one in lines)
    assert_whole(read("jsonl", path=str(path)), count, tmp_path / "pool")


@FUZZ
@given(st.lists(mutants(), min_size=1, max_size=8), st.sampled_from(["jsonl", "auto"]))
def test_less_and_stated_formats_of_anything(tmp_path, rows, kind):
    rows = [GOOD[0], *rows]
    write(tmp_path / "d" / "d_data.jsonl", *[json.dumps(row).encode() + b"\n" for row in rows])
    if kind == "auto":
        found = read("less", path=str(tmp_path), format="auto")
    else:
        found = read("less", path=str(tmp_path))
    assert_whole(found, len(rows), tmp_path / "pool")


@FUZZ
@given(mutants(), st.integers(1, 4))
def test_parquet_and_hub_columns_of_anything(tmp_path, row, count):
    rows = [row if isinstance(row, dict) else {"x": row}] * count
    try:
        table = pa.Table.from_pylist(json.loads(json.dumps(rows)))
        pq.write_table(table, tmp_path / "f.parquet")
    except (pa.ArrowException, UnicodeError, OverflowError, ValueError, TypeError):
        return  # what Arrow does not hold cannot be in such a file
    count = pq.read_metadata(tmp_path / "f.parquet").num_rows  # rows without a column are none
    found = read("parquet", path=str(tmp_path / "f.parquet"))
    assert_whole(found, count, tmp_path / "pool")


@FUZZ
@given(
    st.sampled_from([("instruction", "output"), ("prompt", "completion"), ("messages",), ("x",)]),
    st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=3), min_size=1, max_size=10),
)
def test_tables_of_anything(tmp_path, header, rows):
    rows = [[f"_{cell}".replace("\r", "") for cell in row] for row in rows]
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator="\n").writerows([header, *rows])
    data = sink.getvalue().encode("utf-8", "surrogatepass").replace(b"\0", b"")
    found = read("csv", path=str(write(tmp_path / "f.csv", data)))
    assert_whole(found, len(rows), tmp_path / "pool")

"""Readers: every layout and row format, and every way in which a row can be bad."""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_files import COMPONENTS, JOB, chat, line, packed, read, texts, write

from selectmoe_core import DataError, Message, RawExample, Reject
from selectmoe_core.config import parse
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import RecipeError
from selectmoe_core.plugin.component import Kind
from selectmoe_readers.config import JsonlConfig, LessConfig, ParquetConfig

REAL = Path(os.environ.get("SELECTMOE_DATA", Path(__file__).parents[3] / "../shared/data"))


# --- row formats ---------------------------------------------------------------------------------

QA = [("user", "q"), ("assistant", "a")]
FORMATS = {
    "messages": [
        (chat("q", "a"), QA),
        (chat("q", "a", "r", "b"), [*QA, ("user", "r"), ("assistant", "b")]),
        (
            {"messages": [{"role": "system", "content": "s"}, *chat("q", "a")["messages"]]},
            [("system", "s"), *QA],
        ),
    ],
    "alpaca": [
        ({"instruction": "q", "input": "", "output": "a"}, QA),
        ({"instruction": "q", "output": "a"}, QA),
        ({"instruction": "q", "input": None, "output": "a"}, QA),
        (
            {"instruction": "q", "input": "x\u2028y", "output": "a"},
            [("user", "q\n\nx\u2028y"), ("assistant", "a")],
        ),
        (
            {"instruction": "r", "output": "b", "system": "s", "history": [["q", "a"]]},
            [("system", "s"), *QA, ("user", "r"), ("assistant", "b")],
        ),
    ],
    "sharegpt": [
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, QA),
        (
            {
                "system": "s",
                "conversations": [
                    {"from": "user", "value": "q"},
                    {"from": "Assistant", "value": "a"},
                    {"role": "human", "content": "r"},
                    {"from": "chatgpt", "value": "b"},
                ],
            },
            [("system", "s"), *QA, ("user", "r"), ("assistant", "b")],
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            [("system", "s"), *QA],
        ),
    ],
    "prompt_completion": [
        ({"prompt": "q", "completion": "a"}, QA),
        ({"prompt": "q", "completion": "a", "system": "s"}, [("system", "s"), *QA]),
        (
            {
                "prompt": chat("q", "a", "r")["messages"],
                "completion": [{"role": "assistant", "content": "b"}],
            },
            [*QA, ("user", "r"), ("assistant", "b")],
        ),
    ],
}
CASES = [(name, *case) for name, cases in FORMATS.items() for case in cases]


@pytest.mark.parametrize(("name", "row", "expected"), CASES)
@pytest.mark.parametrize("stated", [True, False])
def test_row_formats(tmp_path, name, row, expected, stated):
    path = write(tmp_path / "data.jsonl", row)
    (found,) = read("jsonl", path=str(path), format=name if stated else "auto")
    assert isinstance(found, RawExample), found
    assert texts(found) == expected
    assert (found.source, found.where) == ("data", "data.jsonl:1")


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_is_found_for_each_file_anew(tmp_path, name):
    for other, cases in FORMATS.items():
        write(tmp_path / f"{other}.jsonl", *(row for row, _ in cases))
    found = read("jsonl", path=str(tmp_path))
    by_source = {}
    for row in found:
        by_source.setdefault(row.source, []).append(texts(row))
    assert by_source[name] == [expected for _, expected in FORMATS[name]]


def test_a_file_keeps_the_format_of_its_first_usable_row(tmp_path):
    path = write(tmp_path / "f.jsonl", {"x": 1}, {"prompt": "q", "completion": "a"}, chat("q", "a"))
    first, second, third = read("jsonl", path=str(path))
    assert "fit no row format: it has 'x'" in first.reason
    assert isinstance(second, RawExample)
    assert (
        "the format 'messages', but by f.jsonl:2 this file has the format 'prompt_comp"
        in third.reason
    )


def test_columns_can_be_mapped(tmp_path):
    rows = [
        {"question": "q", "answer": "a", "origin": "here", "key": 7, "planted": "swap"},
        {"question": "q", "answer": "a", "origin": " ", "key": None},
    ]
    path = write(tmp_path / "f.jsonl", *rows)
    columns = {"prompt": "question", "completion": "answer", "source": "origin", "id": "key"}
    one, two = read("jsonl", path=str(path), columns=columns | {"label": "planted"})
    assert (texts(one), one.source, one.original_id, one.label) == (QA, "here", "7", "swap")
    assert (two.source, two.original_id, two.label) == ("f", "", "")
    with pytest.raises(RecipeError, match="unknown option"):
        read("jsonl", path=str(path), columns={"promt": "question"})


def test_source_names(tmp_path):
    path = write(tmp_path / "a" / "file.jsonl.gz", b"")
    path.write_bytes(gzip.compress(line(chat("q", "a", dataset="own")) + line(chat("q", "a"))))
    assert [row.source for row in read("jsonl", path=str(path))] == ["own", "file"]
    assert [row.source for row in read("jsonl", path=str(path), source="one")] == ["one", "one"]


BAD_ROWS = [
    ("messages", ["x"], "a row must be an object, got a list"),
    ("messages", "x", "a row must be an object, got text"),
    ("messages", None, "a row must be an object, got null"),
    ("messages", {"text": "x"}, "'messages' is missing"),
    ("messages", {"messages": "x"}, "'messages' must be a list"),
    ("messages", {"messages": []}, "at least one turn"),
    ("messages", {"messages": [{"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
    ("messages", {"messages": [{"role": "user", "content": 3}]}, "not text but a number"),
    ("messages", {"messages": [{"role": "tool", "content": "x"}]}, "a turn is by a tool ('tool')"),
    (
        "messages",
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
        "a turn calls a tool",
    ),
    ("alpaca", {"instruction": "x"}, "'output' is missing"),
    ("alpaca", {"instruction": "x", "output": ["y"]}, "'output' must be text, got a list"),
    (
        "alpaca",
        {"instruction": "x", "output": "y", "input": 3},
        "'input' must be text, got a number",
    ),
    ("alpaca", {"instruction": "x", "output": "y", "history": "z"}, "'history' must be a list"),
    ("alpaca", {"instruction": "x", "output": "y", "history": [["z"]]}, "'history' must be a list"),
    ("sharegpt", {"conversations": []}, "at least one turn"),
    ("sharegpt", {"conversations": ["x"]}, "a turn must be an object, got text"),
    ("sharegpt", {"conversations": [{"from": "cat", "value": "x"}]}, "unknown role 'cat'"),
    (
        "sharegpt",
        {"conversations": [{"from": "gpt", "value": None}]},
        "content of a turn is missing",
    ),
    ("sharegpt", {"conversations": [{"value": "x"}]}, "unknown role None"),
    ("sharegpt", {"conversations": [{"from": "function_call", "value": "x"}]}, "tool use"),
    ("sharegpt", {"conversations": [{"from": "observation", "value": "x"}]}, "tool use"),
    ("prompt_completion", {"prompt": "x"}, "'completion' is missing"),
    ("prompt_completion", {"prompt": "x", "completion": 1.5}, "'completion' must be text"),
    ("prompt_completion", {"prompt": [1], "completion": [2]}, "must be an object, got a number"),
]


@pytest.mark.parametrize(("name", "row", "reason"), BAD_ROWS)
def test_rows_of_the_wrong_shape(tmp_path, name, row, reason):
    good = next(row for row, _ in FORMATS[name])
    path = write(tmp_path / "f.jsonl", good, row, good)
    first, found, last = read("jsonl", path=str(path), format=name)
    assert isinstance(found, Reject)
    assert reason in found.reason
    assert found.where == "f.jsonl:2"
    assert isinstance(first, RawExample)
    assert isinstance(last, RawExample)


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"messages": \n', "not valid JSON: Expecting value at column 14"),
        (b"{'a': 1}\n", "at column 2"),
        (b'{"a": 1} {"b": 2}\n', "Extra data at column 10"),
        (b'{"a": "\xff"}\n', "not UTF-8: byte 0xff at column 8"),
        (b'{"a": "\xed\xa0\x80"}\n', "not UTF-8"),
        (b"\xff\xfe{\x00}\x00\n", "not UTF-8: byte 0xff at column 1"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "not usable JSON: Exceeds the limit"),
        (b"[" * 200_000 + b"\n", "nested too deeply"),
        (b'{"messages": "\x00"}\n', "Invalid control character at"),
    ],
)
def test_broken_lines_are_rejected_with_their_place(tmp_path, raw, reason):
    path = write(tmp_path / "f.jsonl", chat("q", "a"), b"\n", raw, chat("r", "b"))
    first, found, last = read("jsonl", path=str(path))
    assert isinstance(found, Reject)
    assert reason in found.reason
    assert (found.where, found.source) == ("f.jsonl:3", "f")
    assert [texts(one)[0][1] for one in (first, last)] == ["q", "r"]


SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from(["a", "é", "\r", *SEPARATORS])).map("".join)),
    end=st.sampled_from([b"\n", b"\r\n"]),
    mark=st.booleans(),
    last=st.booleans(),
    blank=st.sampled_from([b"", b"\n", b"  \r\n", b"\t\n"]),
)
def test_only_line_feeds_end_lines(tmp_path, rows, end, mark, last, blank):
    lines = [
        json.dumps(chat("q", text + "."), ensure_ascii=False).encode().replace(b"\r", b"\\r")
        for text in rows
    ]
    data = (b"\xef\xbb\xbf" if mark else b"") + blank + (end + blank).join(lines)
    path = tmp_path / "f.jsonl"
    path.write_bytes(data + (end if last else b""))
    found = read("jsonl", path=str(path))
    assert [texts(row)[1][1] for row in found] == [text + "." for text in rows]
    step = 1 + bool(blank)
    numbers = [int(row.where.rpartition(":")[2]) for row in found]
    assert numbers == [bool(blank) + 1 + step * number for number in range(len(rows))]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_longer_than_the_limit(tmp_path, suffix):
    short = line(chat("q", "a"))
    limit = len(short) + 5
    fits = short[:-1] + b" " * 5 + b"\n"
    long = short[:-1] + b" " * 6 + b"\n"
    huge = b'{"x": "' + b"y" * 3_000_000 + b'"}\n'
    data = fits + long + short + huge + fits + long[:-1] + b"   "
    path = packed(tmp_path / f"f.jsonl{suffix}", data)
    found = read("jsonl", path=str(path), max_line_bytes=limit)
    kinds = [type(row) for row in found]
    assert kinds == [RawExample, Reject, RawExample, Reject, RawExample, Reject]
    assert f"longer than {limit:,} bytes" in found[3].reason
    assert [row.where.rpartition(":")[2] for row in found] == [str(n) for n in range(1, 7)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_of_100_megabytes_does_not_fill_the_memory(tmp_path, suffix):
    data = line(chat("q", "a")) + b'{"x": "' + b"y" * 100_000_000 + b'"}\n' + line(chat("r", "b"))
    path = packed(tmp_path / f"f.jsonl{suffix}", data)
    del data
    tracemalloc.start()
    try:
        found = read("jsonl", path=str(path), max_line_bytes=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [type(row) for row in found] == [RawExample, Reject, RawExample]
    assert peak < 16 << 20


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_several_parts(tmp_path, suffix):
    rows = [chat(f"q{number}", "a\u2028b") for number in range(50)]
    whole = packed(tmp_path / f"f.jsonl{suffix}", b"".join(map(line, rows)))
    two = [packed(tmp_path / f"{n}{suffix}", b"".join(map(line, rows[n::2]))) for n in (0, 1)]
    parts = tmp_path / "parts" / f"f.jsonl{suffix}"
    parts.parent.mkdir()
    parts.write_bytes(two[0].read_bytes() + two[1].read_bytes())
    expected = [f"q{number}" for number in range(50)]
    assert [texts(row)[0][1] for row in read("jsonl", path=str(whole))] == expected
    found = [texts(row)[0][1] for row in read("jsonl", path=str(parts))]
    assert found == expected[0::2] + expected[1::2]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_damaged_compressed_files_stop(tmp_path, suffix, damage):
    rng = random.Random(1)
    rows = (line(chat(rng.randbytes(90).hex(), "a")) for _ in range(4000))
    path = packed(tmp_path / f"f.jsonl{suffix}", b"".join(rows))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2 : len(data) // 2 + 2000] = rng.randbytes(2000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or incomplete") as raised:
        read("jsonl", path=str(path))
    assert str(path) in str(raised.value)
    assert raised.value.hint


def test_an_empty_file_is_no_error(tmp_path):
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        write(tmp_path / name)
    write(tmp_path / "d.jsonl", b"\xef\xbb\xbf")
    write(tmp_path / "e.jsonl", b"\n \n\r\n")
    packed(tmp_path / "f.jsonl.gz", b"")
    assert read("jsonl", path=str(tmp_path)) == []


def test_a_file_is_streamed(tmp_path):
    """The first rows come while the writer of the file still waits to write the others."""
    fifo = tmp_path / "f.jsonl"
    os.mkfifo(fifo)
    go_on = threading.Event()

    def writer():
        with fifo.open("wb", buffering=0) as file:
            file.write(line(chat("first", "a" * 2_000_000)))
            go_on.wait(10)
            file.write(line(chat("second", "a")))

    thread = threading.Thread(target=writer)
    thread.start()
    reader = COMPONENTS["jsonl"].build(JsonlConfig(path=fifo))
    rows = reader.read(JOB)
    try:
        assert texts(next(rows))[0][1] == "first"
        assert not go_on.is_set()
    finally:
        go_on.set()
    assert texts(next(rows))[0][1] == "second"
    thread.join()


# --- paths ---------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    for name in ("b.jsonl", "a.ndjson", "deep/er/c.json", "deep/d.jsonl", ".git/x.jsonl"):
        write(tmp_path / name, chat(name, "a"))
    (tmp_path / "README.md").write_text("no data", encoding="utf-8")
    packed(tmp_path / "z.jsonl.gz", line(chat("z", "a")))
    return tmp_path


def prompts(rows) -> list[str]:
    return [texts(row)[0][1] for row in rows]


def test_paths(tree):
    every = ["a.ndjson", "b.jsonl", "deep/d.jsonl", "deep/er/c.json", "z"]
    assert prompts(read("jsonl", path=str(tree))) == every
    assert prompts(read("jsonl", path=str(tree / "*.jsonl"))) == ["b.jsonl"]
    assert prompts(read("jsonl", path=str(tree / "**/*.json*"))) == [*every[1:4], "z"]
    several = [str(tree / "z.jsonl.gz"), str(tree / "deep"), str(tree / "*.ndjson")]
    rows = read("jsonl", path=several)
    assert prompts(rows) == ["z", "deep/d.jsonl", "deep/er/c.json", "a.ndjson"]
    assert [row.where for row in rows][:2] == ["z.jsonl.gz:1", "deep/d.jsonl:1"]
    twice = [str(tree / "b.jsonl"), str(tree / "b.jsonl")]
    assert prompts(read("jsonl", path=twice)) == ["b.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    path = write(tmp_path / "a[1]*.jsonl", chat("q", "a"))
    assert len(read("jsonl", path=str(path))) == 1


def test_component_files_are_what_is_read(tree):
    component = COMPONENTS["jsonl"]
    config = JsonlConfig(path=(tree / "deep", tree / "none.jsonl", tree / "no*.jsonl"))
    assert list(component.files(config)) == [
        *(tree / "deep/d.jsonl", tree / "deep/er/c.json"),
        *(tree / "none.jsonl", tree / "no*.jsonl"),
    ]


@pytest.mark.parametrize("name", ["jsonl", "parquet", "less", "hub"])
def test_a_missing_path_is_an_error_before_and_while_reading(tmp_path, name):
    write(tmp_path / "there.txt", b"")
    component = COMPONENTS[name]
    config = component.config(path=tmp_path / "gone" / "f.jsonl")
    reader = component.build(config)
    for act in (reader.check, lambda job: next(reader.read(job))):
        with pytest.raises(DataError, match="there is no file or folder") as raised:
            act(JOB)
        assert "there.txt" in raised.value.hint
    assert not any(path.exists() for path in component.files(config))


def test_a_folder_or_a_pattern_without_data(tmp_path):
    with pytest.raises(DataError, match="no data file in the folder"):
        read("jsonl", path=str(tmp_path))
    with pytest.raises(DataError, match="no file matches"):
        read("jsonl", path=str(tmp_path / "*.jsonl"))
    with pytest.raises(DataError, match="no data file in the folder"):
        read("parquet", path=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jsonl", {}, "'path' is missing"),
        ("jsonl", {"path": []}, "at least 1 item"),
        ("jsonl", {"path": "x", "format": "csv"}, "format"),
        ("jsonl", {"path": "x", "max_line_bytes": 0}, "max_line_bytes"),
        ("jsonl", {"path": "x", "source": " "}, "source"),
        ("less", {"path": "x", "sources": ["a", "a"]}, "'a' is named twice"),
        ("less", {"path": "x", "surces": ["a"]}, "unknown option 'surces'"),
        ("hub", {}, "either 'name'"),
        ("hub", {"name": "a", "path": "b"}, "either 'name'"),
    ],
)
def test_options_that_make_no_sense(name, options, message):
    with pytest.raises(RecipeError, match=message):
        parse(COMPONENTS[name].config, options, where="[pool]")


# --- less ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", [".", "processed", "train/processed"])
def test_less_layout(tmp_path, above):
    for name in ("dolly", "cot"):
        own = chat(f"{name} 1", "a", dataset="other", id=f"{name}_0")
        write(tmp_path / above / name / f"{name}_data.jsonl", own, chat(f"{name} 2", "a"))
    write(tmp_path / above / "cot" / "notes_data.jsonl", chat("not this", "a"))
    rows = read("less", path=str(tmp_path))
    assert prompts(rows) == ["cot 1", "cot 2", "dolly 1", "dolly 2"]
    assert [row.source for row in rows] == ["cot", "cot", "dolly", "dolly"]
    assert (rows[0].original_id, rows[1].original_id) == ("cot_0", "")
    assert rows[3].where == "dolly/dolly_data.jsonl:2"
    assert prompts(read("less", path=str(tmp_path), sources=["dolly"])) == ["dolly 1", "dolly 2"]
    both = read("less", path=str(tmp_path), sources=["dolly", "cot"])
    assert [row.source for row in both] == ["dolly", "dolly", "cot", "cot"]
    with pytest.raises(DataError, match="no source 'doly'") as raised:
        read("less", path=str(tmp_path), sources=["cot", "doly"])
    assert "did you mean 'dolly'" in raised.value.hint
    files = COMPONENTS["less"].files
    assert list(files(LessConfig(path=tmp_path))) == [
        tmp_path / above / name / f"{name}_data.jsonl" for name in ("cot", "dolly")
    ]
    (missing,) = files(LessConfig(path=tmp_path, sources=("doly",)))
    assert not missing.exists()


def test_less_without_sources(tmp_path):
    with pytest.raises(DataError, match=r"contains no <name>/<name>_data\.jsonl"):
        read("less", path=str(tmp_path))


def has_separator(text: str) -> bool:
    return any(character in text for character in SEPARATORS)


@pytest.mark.skipif(not (REAL / "less").is_dir(), reason="needs the data of SELECTMOE_DATA")
def test_real_less_data(tmp_path):
    rows = read("less", path=str(REAL / "less"))
    assert Counter(type(row) for row in rows) == {RawExample: 19_203}
    named = ("cot", "dolly", "flan_v2", "oasst1")
    assert {row.source for row in rows} == {*named, "gpteacher", "self_instruct"}
    raw = [
        json.loads(text)
        for name in sorted({row.source for row in rows})
        for text in (REAL / f"less/train/processed/{name}/{name}_data.jsonl")
        .read_bytes()
        .split(b"\n")
        if text
    ]
    for row, expected in zip(rows, raw, strict=True):
        assert texts(row) == [(m["role"], m["content"]) for m in expected["messages"]]
        assert row.original_id == expected["id"]
    # Characters that end a line for str.splitlines stand inside texts (U+0085, in flan_v2).
    separated = [row for row in rows if any(map(has_separator, dict(texts(row)).values()))]
    assert separated
    pool = build_pool(rows, tmp_path)
    assert len(pool) == 19_203 - sum(of.duplicates for of in pool.sources.values())
    kept = {example.id: example for example in pool.examples()}
    assert sum(has_separator(e.prompt + e.response) for e in kept.values()) == len(separated)
    of_named = read("less", path=str(REAL / "less/train/processed"), sources=list(named))
    assert of_named == [row for row in rows if row.source in named]


@pytest.mark.skipif(not (REAL / "less").is_dir(), reason="needs the data of SELECTMOE_DATA")
def test_real_rows_are_read_and_written_fast(tmp_path):
    """In 3.3 times the time of parsing and hashing the lines; the bound leaves room for twice that.

    A rate would say little: the same core can be several times as slow on another day.
    """
    reader = COMPONENTS["less"].build(LessConfig(path=REAL / "less"))
    files = sorted((REAL / "less").rglob("*.jsonl"))
    build_pool(reader.read(JOB), tmp_path)
    start = time.process_time()
    for path in files:
        for text in path.read_bytes().splitlines():
            hashlib.sha256(json.dumps(json.loads(text)).encode()).digest()
    plain = time.process_time() - start
    start = time.process_time()
    build_pool(reader.read(JOB), tmp_path)
    spent = time.process_time() - start
    assert spent < 7 * plain


# --- parquet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_parquet_formats(tmp_path, name):
    cases = [c for c in FORMATS[name] if not isinstance(c[0].get("prompt"), list)]
    keys = {key for row, _ in cases for key in row}
    rows = [
        dict.fromkeys(keys) | row | {"id": number, "dataset": None}
        for number, (row, _) in enumerate(cases)
    ]
    table = pa.table({key: [row[key] for row in rows] for key in rows[0]})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=1)
    found = read("parquet", path=str(tmp_path))
    assert [texts(row) for row in found] == [expected for _, expected in cases]
    assert [row.where for row in found] == [f"data.parquet:{n}" for n in range(1, len(rows) + 1)]
    assert [row.original_id for row in found] == [str(n) for n in range(len(rows))]
    assert {row.source for row in found} == {"data"}


def test_parquet_reads_batches_in_order_and_only_its_columns(tmp_path):
    rows = [chat(f"q{n}", "a", dataset="x", blob="y" * 50) for n in range(2500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet", row_group_size=999)
    found = read("parquet", path=str(tmp_path / "f.parquet"))
    assert prompts(found) == [f"q{n}" for n in range(2500)]
    assert found[2000].where == "f.parquet:2001"
    assert {row.source for row in found} == {"x"}


def test_parquet_bad_rows_and_files(tmp_path):
    text = pa.array([b"q", b"\xff\xfe", b"r"]).cast(pa.binary())
    bad = pa.StringArray.from_buffers(3, text.buffers()[1], text.buffers()[2])
    table = pa.table({"prompt": bad, "completion": ["a", "b", None]})
    pq.write_table(table, tmp_path / "bad.parquet")
    one, two, three = read("parquet", path=str(tmp_path / "bad.parquet"))
    assert isinstance(one, RawExample)
    assert (two.where, two.reason[:9]) == ("bad.parquet:2", "not UTF-8")
    assert three.reason == "'completion' is missing"
    (tmp_path / "no.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read("parquet", path=str(tmp_path / "no.parquet"))
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "other.parquet")
    found = read("parquet", path=str(tmp_path / "other.parquet"))
    assert ["fit no row format" in row.reason for row in found] == [True, True]
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    assert read("parquet", path=str(tmp_path / "empty.parquet")) == []


def test_parquet_damaged_in_the_middle(tmp_path):
    rows = [chat(random.Random(n).randbytes(40).hex(), "a") for n in range(3000)]
    path = tmp_path / "f.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500, compression="zstd")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(DataError, match="reading stopped after row"):
        list(COMPONENTS["parquet"].build(ParquetConfig(path=path)).read(JOB))


# --- hub -----------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    cache = tmp_path_factory.mktemp("hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


ROWS = [chat(f"q{n}", "a\u2028b", dataset="own", id=f"i{n}") for n in range(1200)]


def test_hub_folder_of_files(tmp_path, offline):
    write(tmp_path / "mine" / "train.jsonl", *ROWS)
    write(tmp_path / "mine" / "test.jsonl", chat("t", "a"))
    found = read("hub", path=str(tmp_path / "mine"))
    assert prompts(found) == [f"q{n}" for n in range(1200)]
    assert (found[7].source, found[7].original_id, found[7].where) == ("own", "i7", "mine/train:8")
    (test,) = read("hub", path=str(tmp_path / "mine"), split="test")
    assert test.source == "mine"
    assert not any(offline.rglob("*.arrow")), "a local folder was copied into the cache"


def test_hub_saved_to_disk(tmp_path, offline):
    from datasets import Dataset, DatasetDict

    saved = Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    DatasetDict(train=saved, test=saved.select([3])).save_to_disk(str(tmp_path / "two"))
    assert prompts(read("hub", path=str(tmp_path / "one"))) == [f"q{n}" for n in range(1200)]
    assert prompts(read("hub", path=str(tmp_path / "two"), split="test")) == ["q3"]
    with pytest.raises(DataError, match="no split 'tset'") as raised:
        read("hub", path=str(tmp_path / "two"), split="tset")
    assert "did you mean 'test'" in raised.value.hint
    files = list(COMPONENTS["hub"].files(COMPONENTS["hub"].config(path=tmp_path / "one")))
    assert files == [tmp_path / "one"]


def test_hub_by_name_through_the_library(tmp_path, offline, monkeypatch):
    """The library is asked with what the options say; its rows come back as they are."""
    import datasets

    from selectmoe_readers import hub

    asked = []
    write(tmp_path / "d" / "train.jsonl", *ROWS[:700])

    def load(name, config_name, *, split, revision, streaming):
        asked.append((name, config_name, split, revision, streaming))
        return datasets.load_dataset(str(tmp_path / "d"), split=split, streaming=streaming)

    monkeypatch.setattr(hub, "load_dataset", load)
    for streaming in (False, True):
        config = COMPONENTS["hub"].config(
            name="org/set", config_name="c", dataset_revision="abc", streaming=streaming
        )
        found = list(COMPONENTS["hub"].build(config).read(JOB))
        assert prompts(found) == [f"q{n}" for n in range(700)]
        assert found[650].where == "set/train:651"
        assert asked[-1] == ("org/set", "c", "train", "abc", streaming)


def test_hub_name_that_is_not_in_the_cache_offline(offline):
    with pytest.raises(DataError, match="no/such_set_here cannot be loaded") as raised:
        read("hub", name="no/such_set_here")
    assert "offline" in raised.value.hint


# --- house ---------------------------------------------------------------------------------------


def test_the_plugin_offers_readers_without_heavy_imports():
    code = (
        "import sys, selectmoe_readers.plugin as p;"
        "print([c.name for c in p.selectmoe_readers()]);"
        "heavy = {'torch', 'datasets', 'transformers', 'zstandard', 'pyarrow.parquet'};"
        "sys.exit(f'imports {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(COMPONENTS) == {"jsonl", "csv", "parquet", "less", "hub"}
    assert Kind.READER.hook == "selectmoe_readers"


def test_messages_are_the_cores_own_type(tmp_path):
    (row,) = read("jsonl", path=str(write(tmp_path / "f.jsonl", chat("q", "a"))))
    assert row.messages == (Message("user", "q"), Message("assistant", "a"))

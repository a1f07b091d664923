"""Files that are one JSON array: the same rows as lines, in bounded memory."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_files import chat, read, texts, write

from selectmoe_core import DataError, RawExample, Reject
from selectmoe_readers import arrays
from selectmoe_readers.arrays import is_array

ALPACA = [{"instruction": f"q{n} [,]{{}}\\", "output": f'"a{n}é'} for n in range(30)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.json.gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\n \r\n"])
def test_an_array_is_read_as_its_rows(tmp_path, indent, name, mark):
    data = mark + json.dumps(ALPACA, indent=indent, ensure_ascii=False).encode() + b"\n"
    path = write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    found = read("jsonl", path=str(path))
    assert [texts(row) for row in found] == [
        [("user", row["instruction"]), ("assistant", row["output"])] for row in ALPACA
    ]
    assert [row.where for row in found] == [f"{name}:{n}" for n in range(1, 31)]
    assert {row.source for row in found} == {"f"}


def test_bad_rows_of_an_array_are_rejected_one_by_one(tmp_path):
    rows = [chat("q", "a"), 3, {"x": 1}, None, chat("r", "b"), ["z"]]
    found = read("jsonl", path=str(write(tmp_path / "f.json", json.dumps(rows).encode())))
    assert [type(row) for row in found] == [RawExample, Reject, Reject, Reject, RawExample, Reject]
    assert found[2].where == "f.json:3"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=4), max_size=3),
        max_size=12,
    ),
    size=st.integers(1, 9),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
)
def test_elements_are_those_of_the_whole_array(tmp_path, rows, size, indent, ascii_only):
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path = write(tmp_path / "f.json", data.encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(arrays, "BUFFER", size)
        try:
            found = [row for _, row in arrays.elements_of(file, path, 1000)]
        except DataError:
            path.read_bytes().decode  # noqa: B018
            with pytest.raises(UnicodeDecodeError):
                path.read_text(encoding="utf-8")
            return
    assert found == rows


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'[{"a": 1}, {"b": ', "row 2 of the JSON array: not valid JSON"),
        (b'[{"a": 1} {"b": 2}]', "row 1 of the JSON array: a comma or the closing bracket"),
        (b'[{"a": 1},]', "row 2 of the JSON array: not valid JSON"),
        (b'[{"a": 1}', "a comma or the closing bracket is missing"),
        (b'[{"a": 1}] [{"a": 1}]', "there is more text after the closing bracket"),
        (b'[{"a": "\xff"}]', "not UTF-8 behind row 0: byte 0xff"),
        (b'[{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "not usable JSON: Exceeds the limit"),
        (b'[{"a": "' + b"x" * 5_000_000 + b'"}]', "longer than 1,000,000 characters"),
    ],
)
def test_broken_arrays_are_errors_about_the_file(tmp_path, data, reason):
    path = write(tmp_path / "f.json", data)
    with pytest.raises(DataError) as raised:
        read("jsonl", path=str(path), max_line_bytes=1_000_000)
    assert reason in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_large_array_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "f.json"
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number in range(3000):
            row = {"instruction": f"q{number}", "output": "a" * 20_000}
            file.write(("," if number else "") + json.dumps(row))
        file.write("]")
    tracemalloc.start()
    try:
        from reader_files import COMPONENTS, JOB

        component = COMPONENTS["jsonl"]
        rows = component.build(component.config(path=path)).read(JOB)
        count = sum(isinstance(row, RawExample) for row in rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3000
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'[{"a": 1}]', True),
        (b'[\n {"a": 1},\n', True),
        (b"[]", True),
        (b"[ ]\n", True),
        (b'["x"]\n', False),
        (b"[1, 2]", False),
        (b'[{"role": "user"}]\n[{"role": "user"}]\n', False),
        (b'{"a": [{}]}', False),
        (b"", False),
    ],
)
def test_what_is_an_array(head, expected):
    assert is_array(head) is expected


def test_an_array_on_each_line_is_a_row_on_each_line(tmp_path):
    path = write(tmp_path / "f.jsonl", [{"role": "user"}], [{"role": "user"}])
    found = read("jsonl", path=str(path))
    assert [row.reason for row in found] == ["a row must be an object, got a list"] * 2

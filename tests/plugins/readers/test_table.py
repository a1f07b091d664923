"""Tables of text against Python's own csv module."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_files import chat, read, texts, write

from selectmoe_core import DataError, RawExample, RecipeError, Reject

CELLS = st.text(st.sampled_from('aé",\n\t; '), max_size=6).map(lambda text: f"x{text}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30),
    tabs=st.booleans(),
    mark=st.booleans(),
)
def test_rows_are_those_of_the_csv_module(tmp_path, rows, tabs, mark):
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter="\t" if tabs else ",")
    writer.writerows([("instruction", "output"), *rows])
    data = (b"\xef\xbb\xbf" if mark else b"") + sink.getvalue().encode()
    path = write(tmp_path / ("f.tsv" if tabs else "f.csv"), data)
    found = read("csv", path=str(path))
    assert [texts(row) for row in found] == [
        [("user", question), ("assistant", answer)] for question, answer in rows
    ]
    assert [row.where for row in found] == [f"{path.name}:{n}" for n in range(2, len(rows) + 2)]


def test_bad_rows_are_rejected_with_their_number(tmp_path):
    lines = [
        b"instruction,output,dataset\n",
        b"q1,a1,d\n",
        b"only,two\n",
        b"q3,\xff\xfe,d\n",
        b'"q\n4",a4,\n',
        b"one,two,three,four\n",
        b"q6,,d\n",
        b"q7,a7,d\n",
        b"last\n",
    ]
    found = read("csv", path=str(write(tmp_path / "f.csv", *lines)))
    assert [int(row.where.rpartition(":")[2]) for row in found] == list(range(2, 10))
    kinds = [RawExample, Reject, Reject, RawExample, Reject, Reject, RawExample, Reject]
    assert [type(row) for row in found] == kinds
    assert found[1].reason == "the row has 2 values, the table has 3"
    assert found[2].reason.startswith("not UTF-8")
    assert (texts(found[3])[0][1], found[3].source) == ("q\n4", "f")
    assert found[5].reason == "'output' is missing"
    assert found[6].source == "d"


def test_numbers_and_dates_stay_text(tmp_path):
    path = write(tmp_path / "f.csv", b"prompt,completion\n007,2024-01-02\n1e3,true\n")
    assert [texts(row) for row in read("csv", path=str(path))] == [
        [("user", "007"), ("assistant", "2024-01-02")],
        [("user", "1e3"), ("assistant", "true")],
    ]


def test_messages_as_json_text_and_another_delimiter(tmp_path):
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=";")
    writer.writerows([("messages", "id"), (json.dumps(chat("q", "a")["messages"]), "i1")])
    path = write(tmp_path / "f.csv.gz", gzip.compress(sink.getvalue().encode()))
    (found,) = read("csv", path=str(path), delimiter=";")
    assert (texts(found), found.original_id) == ([("user", "q"), ("assistant", "a")], "i1")
    assert found.source == "f"


def test_many_small_blocks_keep_the_order(tmp_path):
    lines = [f"q{n},a{n}\n" if n % 7 else "x\n" for n in range(1, 900)]
    path = write(tmp_path / "f.csv", b"prompt,completion\n", "".join(lines).encode())
    found = read("csv", path=str(path), max_row_bytes=1024)
    assert len(found) == 899
    for number, row in enumerate(found, start=1):
        assert row.where == f"f.csv:{number + 1}"
        assert isinstance(row, Reject) if number % 7 == 0 else texts(row)[0][1] == f"q{number}"


def test_a_row_longer_than_a_block_is_an_error(tmp_path):
    data = b"prompt,completion\nq," + b"a" * 5000 + b"\n"
    with pytest.raises(DataError) as raised:
        read("csv", path=str(write(tmp_path / "f.csv", data)), max_row_bytes=1024)
    assert "max_row_bytes" in raised.value.hint


def test_headers(tmp_path):
    with pytest.raises(DataError, match="has two columns of one name"):
        read("csv", path=str(write(tmp_path / "f.csv", b"prompt,prompt\nq,a\n")))
    (found,) = read("csv", path=str(write(tmp_path / "g.csv", b"x,y\n1,2\n")))
    assert "fit no row format: it has 'x', 'y'" in found.reason
    assert read("csv", path=str(write(tmp_path / "h.csv", b""))) == []


def test_a_broken_row_that_is_not_utf8_is_one_reject(tmp_path, capfd):
    lines = [
        b"instruction,output\n",
        b"q1,a1\n",
        b"q2,\xff\xfe,too many\n",
        b"\xe9\n",
        "q\u00e9\u4e16,\U0001f600\n".encode(),
    ]
    found = read("csv", path=str(write(tmp_path / "f.csv", *lines)))
    assert [type(row) for row in found] == [RawExample, Reject, Reject, RawExample]
    assert found[1].reason == "the row has 3 values, the table has 2"
    assert found[2].reason == "the row has 1 values, the table has 2"
    assert texts(found[3]) == [("user", "q\u00e9\u4e16"), ("assistant", "\U0001f600")]
    assert capfd.readouterr().err == ""


def test_columns_have_names_in_any_letters(tmp_path):
    data = '\ufeff"fr\u00e5ga",\u7b54\nq,a\n'.encode()
    path = write(tmp_path / "f.csv", data)
    columns = {"prompt": "fr\u00e5ga", "completion": "\u7b54"}
    (found,) = read("csv", path=str(path), format="prompt_completion", columns=columns)
    assert texts(found) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize("delimiter", ["\u00e9", "\n", '"', ",,", ""])
def test_a_delimiter_that_no_table_has_is_refused(tmp_path, delimiter):
    path = write(tmp_path / "f.csv", b"prompt,completion\nq,a\n")
    with pytest.raises(RecipeError, match="delimiter"):
        read("csv", path=str(path), delimiter=delimiter)

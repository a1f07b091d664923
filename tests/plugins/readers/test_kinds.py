"""Files that are something else than their name says: the error names what, and what to do."""

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard
from reader_files import chat, line, read, texts, write

from selectmoe_core import DataError

ROWS = [chat(f"question {number}", "an answer é") for number in range(20)]
LINES = b"".join(map(line, ROWS))
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 77\n"


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def feather() -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def archive(kind: str) -> bytes:
    sink = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(sink, "w") as file:
            file.writestr("a.jsonl", LINES)
    else:
        with tarfile.open(fileobj=sink, mode="w") as file:
            entry = tarfile.TarInfo("a.jsonl")
            entry.size = len(LINES)
            file.addfile(entry, io.BytesIO(LINES))
    return sink.getvalue()


def database(tmp_path) -> bytes:
    connection = sqlite3.connect(tmp_path / "rows.db")
    connection.execute("create table rows (x)")
    connection.commit()
    connection.close()
    return (tmp_path / "rows.db").read_bytes()


KINDS = {
    "Parquet": (parquet, "a Parquet file", 'use = "parquet"'),
    "Arrow": (feather, "an Arrow file", "hub"),
    "LFS": (lambda: LFS, "a Git LFS pointer", "git lfs pull"),
    "UTF-16": (lambda: LINES.decode().encode("utf-16"), "UTF-16 text", "iconv -f UTF-16 "),
    "UTF-16LE": (lambda: LINES.decode().encode("utf-16-le"), "UTF-16 text", "UTF-16LE"),
    "UTF-16BE": (lambda: LINES.decode().encode("utf-16-be"), "UTF-16 text", "UTF-16BE"),
    "UTF-32": (lambda: LINES.decode().encode("utf-32"), "UTF-32 text", "iconv -f UTF-32 "),
    "bzip2": (lambda: bz2.compress(LINES), "bzip2-compressed", "bunzip2"),
    "xz": (lambda: lzma.compress(LINES), "xz-compressed", "unxz"),
    "zip": (lambda: archive("zip"), "a zip archive", "unzip"),
    "tar": (lambda: archive("tar"), "a tar archive", "tar xf"),
    "HTML": (lambda: b"<!DOCTYPE html><html>404</html>", "an HTML page", "download the file again"),
    "binary": (lambda: bytes(range(32)) * 4 + bytes(200), "binary data", "download"),
    "CSV": (lambda: b"instruction,input,output\nq,,a\n", "a table (CSV)", 'use = "csv"'),
    "TSV": (lambda: b'"prompt"\t"completion"\nq\ta\n', "a table (CSV)", 'use = "csv"'),
    "JSON over lines": (
        lambda: json.dumps(ROWS[0], indent=1).encode(),
        "JSON objects that span several lines",
        "jq -c . FILE",
    ),
    "an object of rows": (
        lambda: json.dumps({"version": 1, "data": ROWS}).encode(),
        "one JSON object, not rows: 'data' holds 20 entries",
        "JSON array",
    ),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_other_files_named_jsonl(tmp_path, name, packed):
    make, what, advice = KINDS[name]
    data = gzip.compress(make()) if packed else make()
    path = write(tmp_path / "f.jsonl", data)
    with pytest.raises(DataError) as raised:
        read("jsonl", path=str(path))
    assert what in str(raised.value)
    assert str(path) in str(raised.value)
    assert advice in raised.value.hint


def test_a_database(tmp_path):
    path = write(tmp_path / "f.jsonl", database(tmp_path))
    with pytest.raises(DataError, match="an SQLite database"):
        read("jsonl", path=str(path))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_files_are_known_by_their_content(tmp_path, pack):
    path = write(tmp_path / "f.jsonl", pack(LINES))
    assert [texts(row)[0][1] for row in read("jsonl", path=str(path))] == [
        f"question {number}" for number in range(20)
    ]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_plain_text_named_as_compressed(tmp_path, suffix):
    path = write(tmp_path / f"f.jsonl{suffix}", LINES)
    with pytest.raises(DataError, match="-compressed, though its name ends in") as raised:
        read("jsonl", path=str(path))
    assert "rename it" in raised.value.hint


@pytest.mark.parametrize(
    ("data", "what", "advice"),
    [
        (LFS, "a Git LFS pointer", "git lfs pull"),
        (LINES, "is JSON, not Parquet", 'use = "jsonl"'),
        (b"", "not a readable Parquet file", "download"),
        (bz2.compress(LINES), "bzip2-compressed", "bunzip2"),
    ],
)
def test_other_files_named_parquet(tmp_path, data, what, advice):
    path = write(tmp_path / "f.parquet", data)
    with pytest.raises(DataError, match=what) as raised:
        read("parquet", path=str(path))
    assert advice in raised.value.hint


def test_every_flipped_bit_of_a_footer_is_an_error_or_reads(tmp_path):
    table = pa.table({"prompt": ["q", "r"], "completion": ["a", "b"], "dataset": ["x", "y"]})
    path = tmp_path / "f.parquet"
    pq.write_table(table, path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    failed = 0
    for place in range(len(whole) - 8 - size, len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        try:
            read("parquet", path=str(path))
        except DataError as error:
            failed += 1
            assert str(path) in str(error)  # noqa: PT017
    assert failed > 10


def test_a_stray_null_byte_is_one_bad_row(tmp_path):
    path = write(tmp_path / "f.jsonl", LINES, b'{"messages": "\x00"}\n', LINES)
    found = read("jsonl", path=str(path))
    assert len(found) == 41
    assert "Invalid control character" in found[20].reason

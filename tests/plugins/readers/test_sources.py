"""Sources: what a row says, else the name of its data set's files and folders."""

import os
from pathlib import PurePath

import pytest
from reader_files import COMPONENTS, chat, read, write

from selectmoe_readers.sources import source_names

CASES = [
    ({"dolly/train": "dolly", "flan/train": "flan"}, "folders"),
    ({"dolly/data/train": "dolly", "flan/data/train": "flan"}, "folders above"),
    ({"dolly/train": "dolly", "dolly/test": "dolly", "flan/train": "flan"}, "splits"),
    ({f"train-0000{n}-of-00003": "train" for n in range(3)}, "shards of one set"),
    ({f"dolly/train-0000{n}-of-00003": "dolly" for n in range(3)} | {"x": "x"}, "in a folder"),
    ({f"part-000{n}": "data" for n in range(3)}, "parts"),
    ({"0000": "data", "0001": "data"}, "numbers alone"),
    ({f"flan_v2/part-000{n}": "flan_v2" for n in range(3)} | {"cot": "cot"}, "parts of a folder"),
    ({f"oasst.part{n}": "oasst" for n in range(12)}, "parts by name"),
    ({f"cot-{n:05d}": "cot" for n in range(3)}, "five digits"),
    ({"a/part-00000-1f2e-c000.snappy": "a", "b/part-00000-77-c000.snappy": "b"}, "Spark"),
    ({"a/0000": "a", "a/0001": "a", "b/000_00000": "b"}, "numbers"),
    ({"flan_v2": "flan_v2", "squad-2": "squad-2", "llama3": "llama3"}, "numbers that name"),
    ({"x/en": "x-en", "y/en": "y-en", "fr": "fr"}, "equal names"),
    ({"a/x/train": "a-x", "b/x/train": "b-x"}, "equal folders"),
    ({"data/train": "data", "more/train": "more"}, "folders that say nothing"),
    ({"train": "train"}, "one file"),
    ({"deep/er/c": "c", "b": "b"}, "folders that need not be named"),
]


@pytest.mark.parametrize("names", [case for case, _ in CASES], ids=[name for _, name in CASES])
def test_names_of_files(names):
    assert source_names([PurePath(name) for name in names]) == list(names.values())


def test_a_folder_of_folders_and_shards(tmp_path):
    for name in ("dolly/train", "flan/train-00000-of-00002", "flan/train-00001-of-00002"):
        write(tmp_path / f"{name}.jsonl", chat(name, "a"))
    found = read("jsonl", path=str(tmp_path))
    assert [row.source for row in found] == ["dolly", "flan", "flan"]
    component = COMPONENTS["jsonl"]
    config = component.config(path=tmp_path)
    assert list(component.sources(config)) == ["dolly", "flan"]
    assert list(component.sources(component.config(path=tmp_path, source="mine"))) == ["mine"]
    assert list(component.sources(component.config(path=tmp_path / "gone"))) == []


def test_names_of_less_sources(tmp_path):
    for name in ("dolly", "cot"):
        write(tmp_path / name / f"{name}_data.jsonl", chat(name, "a"))
    component = COMPONENTS["less"]
    assert list(component.sources(component.config(path=tmp_path))) == ["cot", "dolly"]
    chosen = component.config(path=tmp_path, sources=("dolly", "gone"))
    assert list(component.sources(chosen)) == ["dolly"]


def test_columns_that_name_sources(tmp_path):
    rows = [
        chat("1", "a", dataset="d", source="s", category="c"),
        chat("2", "a", source="s", category="c"),
        chat("3", "a", dataset=" ", category="c"),
        chat("4", "a", dataset=None, source=["s"], category=7),
        chat("5", "a"),
    ]
    path = str(write(tmp_path / "f.jsonl", *rows))
    assert [row.source for row in read("jsonl", path=path)] == ["d", "s", "c", "7", "f"]
    only = read("jsonl", path=path, columns={"source": "category"})
    assert [row.source for row in only] == ["c", "c", "c", "7", "f"]
    two = read("jsonl", path=path, columns={"source": ["category", "dataset"]})
    assert [row.source for row in two] == ["c", "c", "c", "7", "f"]


def test_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102  (a name in bytes)
    with open(folder + b"/\xff.jsonl", "wb") as file:  # noqa: PTH123
        file.write(b'{"prompt": "q", "completion": "a"}\n')
    write(tmp_path / "good.jsonl", chat("q", "b"))
    first, second = read("jsonl", path=str(tmp_path))
    assert (first.source, first.where) == ("\\udcff", "caf\\udce9/\\udcff.jsonl:1")
    assert second.source == "good"

"""Splits of folders: parts and sums as the datasets library writes them."""

import shutil

import pytest
from reader_files import chat, read, texts, write

from selectmoe_core import DataError, Job
from selectmoe_readers.config import HubConfig
from selectmoe_readers.hub import HubReader

ROWS = {
    "train": [chat(f"t{n}", "a") for n in range(1500)],
    "test": [chat(f"e{n}", "a") for n in range(7)],
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from datasets import Dataset, DatasetDict

    files, saved = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("saved")
    for name, rows in ROWS.items():
        write(files / f"{name}.jsonl", *rows)
    DatasetDict({n: Dataset.from_list(rows) for n, rows in ROWS.items()}).save_to_disk(str(saved))
    return {"files": files, "saved": saved}


TRAIN = [f"t{n}" for n in range(1500)]
TEST = [f"e{n}" for n in range(7)]
SPLITS = {
    "train": TRAIN,
    "train[:1]": TRAIN[:1],
    "train[10:1030]": TRAIN[10:1030],
    "train[-2:]": TRAIN[-2:],
    "train[:10%]": TRAIN[:150],
    "test[50%:]": TEST[4:],
    "train+test": TRAIN + TEST,
    "test[:2]+train[:3]": TEST[:2] + TRAIN[:3],
    "all": TRAIN + TEST,
}


@pytest.mark.parametrize("kind", ["files", "saved"])
@pytest.mark.parametrize("split", SPLITS)
def test_parts_and_sums_of_splits(folders, kind, split):
    found = read("hub", path=str(folders[kind]), split=split)
    prompts = [texts(row)[0][1] for row in found]
    assert prompts == SPLITS[split] if split != "all" else sorted(prompts) == sorted(SPLITS[split])
    numbers = [int(row.where.rpartition(":")[2]) for row in found]
    assert numbers == list(range(1, len(found) + 1))


@pytest.mark.parametrize("kind", ["files", "saved"])
@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tset", "no split 'tset'"),
        ("train[", "cannot be read"),
        ("train[x:]", "cannot be read"),
        ("train+dev[:3]", "no split 'dev'"),
    ],
)
def test_splits_that_are_not_there(folders, kind, split, message):
    with pytest.raises(DataError, match=message):
        read("hub", path=str(folders[kind]), split=split)


def test_a_saved_dataset_has_one_split(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS["test"]).save_to_disk(str(tmp_path / "one"))
    assert len(read("hub", path=str(tmp_path / "one"), split="train[:3]")) == 3
    with pytest.raises(DataError, match="no split 'test'") as raised:
        read("hub", path=str(tmp_path / "one"), split="test")
    assert "train" in raised.value.hint


def test_files_that_differ_in_a_column_are_named(tmp_path):
    write(tmp_path / "d" / "a.jsonl", chat("q", "a", extra=None))
    write(tmp_path / "d" / "b.jsonl", chat("q", "b", extra="text"))
    with pytest.raises(DataError) as raised:
        read("hub", path=str(tmp_path / "d"))
    for part in ("'extra' is null in", "a.jsonl", "string in", "b.jsonl"):
        assert part in str(raised.value)
    assert 'use = "jsonl"' in raised.value.hint


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    import datasets

    from selectmoe_readers import hub

    def load(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "/proc/x")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/proc/x/datasets")
    monkeypatch.setattr(hub, "load_dataset", load)
    write(tmp_path / "d" / "train.jsonl", chat("q", "a"))
    with pytest.raises(DataError, match="/proc/x/datasets") as raised:
        read("hub", path=str(tmp_path / "d"))
    assert "HF_HOME" in raised.value.hint


def test_a_file_is_no_folder(tmp_path):
    path = write(tmp_path / "train.jsonl", chat("q", "a"))
    with pytest.raises(DataError, match="is a file, not a folder") as raised:
        read("hub", path=str(path))
    assert '"jsonl"' in raised.value.hint


def test_tools_in_a_column_of_their_own_are_seen(tmp_path):
    rows = [chat("q", "a", tools='[{"name": "f"}]', other="x"), chat("r", "b", tools="", other="x")]
    write(tmp_path / "d" / "train.jsonl", *rows)
    first, second = read("hub", path=str(tmp_path / "d"))
    assert "the row has tools" in first.reason
    assert texts(second)[0][1] == "r"


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        *(("one", "state.json", text) for text in (b"", b"{", b"[]", b"{}", b"3", b"\xff")),
        *(("one", "dataset_info.json", text) for text in (b"", b"[]", b"3")),
        ("one", "data-00000-of-00001.arrow", b"ARROW1"),
        *(("saved", "dataset_dict.json", text) for text in (b"{", b"[]", b"{}", b"3")),
        *(("files", "train.jsonl", text) for text in (b"{", b"\xff\xfe", b"[" * 5000)),
        ("files", "README.md", b"---\nconfigs: [\n---\n"),
    ],
)
def test_a_damaged_folder_is_an_error_of_the_data(tmp_path, folders, kind, name, content):
    from datasets import Dataset

    place = tmp_path / "data"
    if kind == "one":
        Dataset.from_list(ROWS["test"]).save_to_disk(str(place))
    else:
        shutil.copytree(folders[kind], place)
    (place / name).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be loaded|no split|differ"):
        read("hub", path=str(place))


def test_a_bug_of_ours_is_not_taken_for_damaged_data(folders, monkeypatch):
    def wrong(*_):
        raise AttributeError("a bug")

    monkeypatch.setattr("selectmoe_readers.hub.chosen", wrong)
    with pytest.raises(AttributeError, match="a bug"):
        list(HubReader(HubConfig(path=folders["files"])).read(Job(seed=1)))

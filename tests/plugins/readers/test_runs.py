"""Whole runs over odd files: what is told, what is reused, and what can be read again."""

import json
import os
import threading
from pathlib import Path

import pytest
from reader_files import chat, texts, write
from reader_files import read as read_rows

RECIPE = """
format = 1
name = "odd"
[pool]
use = "jsonl"
path = "{path}"
[score]
use = "length"
[select]
use = "top-fraction"
fraction = 1.0
"""


@pytest.fixture
def run(cli, tmp_path):
    """Runs a recipe over a path to the selection; returns what was said."""
    write(tmp_path / "r.toml", RECIPE.format(path="rows.jsonl").encode())

    def call(*arguments, command="run", outputs="out"):
        return cli(command, tmp_path / "r.toml", *arguments, "--outputs", tmp_path / outputs)

    return call


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_selection_is_read_again_as_it_was(run, tmp_path):
    turns = chat("q", "wrong", "sure?", "right")["messages"]
    turns[1]["weight"] = 0
    rows = [
        chat("1", "a", dataset="dolly", id="d1", label="ok"),
        chat("2", "bb", dataset="flan", id=7),
        {"messages": turns, "source": "mine"},
    ]
    write(tmp_path / "rows.jsonl", *rows)
    assert run().code == 0
    folder = only(tmp_path, "out/store/select-*/selected_data.jsonl").parent
    first = [json.loads(line) for line in (folder / "selected_data.jsonl").open(encoding="utf-8")]
    (tmp_path / "again.jsonl").write_bytes((folder / "selected_data.jsonl").read_bytes())
    assert run(f"pool.path={tmp_path / 'again.jsonl'}", outputs="more").code == 0
    path = only(tmp_path, "more/store/select-*/selected_data.jsonl")
    second = [json.loads(line) for line in path.open(encoding="utf-8")]
    for one in (*first, *second):
        del one["meta"]["where"]
    assert second == first
    assert {(one["source"], one["meta"]["original_id"], one["meta"]["label"]) for one in first} == {
        ("dolly", "d1", "ok"),
        ("flan", "7", ""),
        ("mine", "", ""),
    }


def test_the_folder_of_a_selection_is_a_data_set(run, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    write(tmp_path / "rows.jsonl", *[chat(f"q{n}", "a" * n) for n in range(1, 5)])
    assert run().code == 0
    folder = only(tmp_path, "out/store/select-*/selected_data.jsonl").parent
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset(str(folder), split="train")
    lines = [json.loads(line) for line in (folder / "selected_data.jsonl").open(encoding="utf-8")]
    assert loaded.to_list() == lines
    found = read_rows("hub", path=str(folder))
    assert [texts(row)[0][1] for row in found] == ["q4", "q3", "q2", "q1"]


def test_rows_of_a_pipe_are_never_reused(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    kept = []
    for begin in (0, 100):
        rows = [chat(f"q{begin + n}", "a" * (n + 1)) for n in range(5)]
        writer = threading.Thread(target=write, args=(tmp_path / "pipe", *rows))
        writer.start()
        said = run(f"pool.path={tmp_path / 'pipe'}", "--until", "pool")
        writer.join()
        assert said.code == 0, said.err
        assert "examples 5, rejected 0, duplicates 0; sources: pipe 5" in said.err
        made = (tmp_path / "out/store").glob("pool-*/artifact.json")
        kept.append({path.parent.name for path in made})
    assert len(kept[1]) == 2


@pytest.mark.parametrize("reader", ["jsonl", "csv", "parquet"])
def test_a_device_is_no_pool(run, reader):
    said = run(f"pool.use={reader}", "pool.path=/dev/zero")
    assert said.code == 1
    assert "/dev/zero is a device, not a file" in said.err


@pytest.mark.parametrize("text", ["pool.path=", "pool.path= ", "pool.path=['']"])
def test_an_empty_path_is_not_the_working_folder(run, tmp_path, text, monkeypatch):
    write(tmp_path / "private.jsonl", chat("q", "a"))
    monkeypatch.chdir(tmp_path)
    said = run(text)
    assert said.code == 2
    assert "option 'path' is empty" in said.err
    assert "'model'" in run("score.model=").err


def test_empty_outputs_are_not_the_working_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r.toml", RECIPE.format(path="rows.jsonl").encode())
    write(tmp_path / "rows.jsonl", chat("q", "a"))
    said = cli("run", "r.toml", "--outputs", "")
    assert said.code == 2
    assert "the path is empty" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.toml", "rows.jsonl"]


def test_what_is_left_out_is_told(run, tmp_path):
    bad = {"messages": [{"role": "narrator", "content": "x"}]}
    write(tmp_path / "rows.jsonl", chat("q", "a"), chat("q", "a"), bad, bad, b"{\n")
    said = run("pool.on_reject=skip", "--until", "pool")
    assert said.code == 0
    assert "examples 1, rejected 3, duplicates 1; sources: rows 1" in said.err
    assert "rejected: 2 rows, the first at rows.jsonl:3: unknown role 'narrator'" in said.err
    assert "rejected: 1 row, the first at rows.jsonl:5: not valid JSON" in said.err
    write(tmp_path / "rows.jsonl", bad, bad)
    said = run("pool.on_reject=skip", "--until", "pool")
    assert said.code == 1
    assert "every row was rejected: 2 rows, the first at rows.jsonl:1: unknown role" in said.err


def test_the_plan_names_the_sources_of_files(run, tmp_path):
    for name in ("dolly", "flan"):
        write(tmp_path / "data" / name / "train.jsonl", chat(name, "a"))
    said = run(f"pool.path={tmp_path / 'data'}", command="plan")
    assert said.code == 0
    assert "pool sources by file name: dolly, flan" in said.out


def test_half_a_surrogate_in_a_source_is_one_reject(run, tmp_path):
    write(tmp_path / "rows.jsonl", chat("q", "a"), b'{"dataset": "bad\\ud83d", "prompt": "q"}\n')
    said = run("pool.on_reject=skip", "--until", "pool")
    assert said.code == 0
    assert "examples 1, rejected 1" in said.err


def test_files_and_folders_that_are_not_utf8(run, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/data/caf\xe9"))
    write(folder / "\udcff.jsonl", chat("q", "a"))
    write(tmp_path / "rows.jsonl", chat("q", "c"))
    assert run(f"pool.path={tmp_path / 'data'}", "--until", "pool").code == 0
    for said in (run(f"pool.path={folder}"), run(outputs="caf\udce9/out")):
        assert said.code == 2
        assert "caf\\udce9" in said.err
        assert "is not UTF-8" in said.err

"""A folder where a file must be, or a file where a folder must be: made again, or one message."""

import errno
import os
import shutil
import sys

import pytest

from selectmoe_core.errors import of_disk

UNFINISHED = ("how.json", "shards.json", "scores/part-00001.parquet", "scores/part-00004.parquet")


def put_folder(path, *, full):
    path.unlink(missing_ok=True)
    path.mkdir()
    if full:
        (path / "inner").write_text("x")


def answer(project, path):
    """Run again: everything is as before, or the message names the place."""
    said = project.run("--until", "select")
    assert "Traceback" not in said.err
    if said.code:
        assert said.code == 1
        assert str(path) in said.err.replace("\n", "")
        assert "Hint: move it away" in said.err
        shutil.rmtree(path)
        said = project.run("--until", "select")
    assert said.code == 0, said.err
    assert list(project.store.glob("select-*/selected_data.jsonl"))


@pytest.mark.slow
def test_a_folder_in_the_place_of_any_file_of_a_finished_store(project):
    assert project.run("--until", "select").code == 0
    files = [path for path in sorted(project.store.rglob("*")) if path.is_file()]
    folders = {
        path.name.partition("-")[0]: path for path in project.store.glob("*-*") if path.is_dir()
    }
    assert {"pool", "score", "select"} <= folders.keys()
    files = [path for path in files if path.suffix != ".md"]  # notes are not checked
    tried = [path for path in files if path.parent in (project.store, *folders.values())]
    assert len(tried) > 10
    for number, path in enumerate(tried):
        put_folder(path, full=bool(number % 2))
        answer(project, path)
        # Locks, what only saves time, and scores that nothing needs may stay as they are.
        assert path.is_file() or path.parent not in (folders["pool"], folders["select"])
        if path.suffix == ".lock" and path.is_dir():
            shutil.rmtree(path)  # what is tried next may need it


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_folder_in_the_place_of_a_file_of_an_unfinished_stage(project, name):
    project.tell("fail-score-3")
    assert project.run("--until", "select").code == 1
    project.untell("fail-score-3")
    (folder,) = project.store.glob("score-*/")
    put_folder(folder / name, full=True)
    answer(project, folder / name)


def test_a_file_in_the_place_of_a_folder(project):
    project.tell("fail-score-3")
    assert project.run("--until", "select").code == 1
    (folder,) = project.store.glob("score-*/")
    shutil.rmtree(folder / "scores")
    (folder / "scores").write_text("x")
    said = project.run("--until", "select")
    assert said.code == 1
    assert f"a file is where a folder must be: {folder / 'scores'}" in said.err.replace("\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_place_where_no_folder_can_be_made(project):
    said = project.run("--until", "pool", "--outputs", "/proc/none")
    assert said.code == 1
    assert "Error: cannot make a folder for this run at /proc/none/" in said.err
    assert "--outputs" in said.err


def test_what_a_plugin_does_wrong_with_folders_stays_its_error(tmp_path):
    with pytest.raises(FileExistsError) as caught:
        tmp_path.mkdir()
    assert of_disk(caught.value, "x") is None
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "no").open()
    assert of_disk(missing.value, "x") is None


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "change the permissions or correct the path"),
        (errno.EROFS, "change the permissions or correct the path"),
        (errno.ENOSPC, "free space or correct the path"),
    ],
)
def test_the_hint_is_about_what_the_disk_refused(number, hint):
    refused = of_disk(OSError(number, os.strerror(number), "a.txt"), "x")
    assert refused is not None
    assert refused.hint.startswith(hint)

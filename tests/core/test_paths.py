"""Names and paths that come from data."""

import os
import threading

import pytest

from selectmoe_core import ModelError, RecipeError, StageError, inside, plain_name, read_regular
from selectmoe_core.paths import name_fault

BAD_NAMES = [
    "", " ", ".", "..", "a/b", "/etc/passwd", "../a", "a/", "a\\b", "C:\\x", "a\0b", "a\nb",
    "\x1b[2J", "half \ud800", "x" * 256, "ü" * 128, None, 7, True, ["a"], b"a",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_what_is_no_name_is_refused_in_printable_words(name):
    with pytest.raises(RecipeError, match=r"here: .* cannot be a name: it ") as caught:
        plain_name(name, where="here")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
    assert caught.value.hint


@pytest.mark.parametrize(
    "name", ["a", "a b", "model-00001.safetensors", "..a", ".hidden", "ü", "x" * 255]
)
def test_a_name_stays_as_it_is(name):
    assert plain_name(name, where="here") == name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *[(name, "it ") for name in BAD_NAMES],
        ("a b", "it has ' '"),
        ("a:b", "it has ':'"),
        ("a@random", "it has '@'"),
        ("[x]", "it has '['"),
        ("ü", "it has 'ü'"),
        (".a", "it is too long, or does not start with a letter or digit"),
        ("-a", "it is too long, or does not start with a letter or digit"),
        ("a" * 101, "it is too long, or does not start with a letter or digit"),
        *[(name, "") for name in ("a", "A.b-c_9", "0", "a" * 100)],
    ],
    ids=ascii,
)
def test_a_name_that_a_recipe_chooses_also_stands_in_keys(name, fault):
    found = name_fault(name, chosen=True)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_the_error_is_the_one_asked_for():
    with pytest.raises(ModelError, match="'a/b'") as caught:
        plain_name("a/b", where="x", error=ModelError, hint="do this")
    assert caught.value.hint == "do this"


@pytest.fixture
def house(tmp_path):
    (tmp_path / "house" / "room").mkdir(parents=True)
    (tmp_path / "garden").mkdir()
    (tmp_path / "house" / "out").symlink_to(tmp_path / "garden")
    (tmp_path / "house" / "in").symlink_to(tmp_path / "house" / "room")
    (tmp_path / "house" / "dangling").symlink_to(tmp_path / "garden" / "nothing")
    return tmp_path / "house"


@pytest.mark.parametrize("path", ["a", "room", "room/a", "room/../a", "in/a", "new/deep/a"])
def test_paths_inside_are_returned(house, path):
    assert inside(house, path, where="here") == house / path


@pytest.mark.parametrize(
    "path",
    ["..", "../a", "room/../../garden", "/etc/passwd", "out", "out/a", "dangling", "", ".",
     "room/..", "a\0b"],
)  # fmt: skip
def test_paths_that_lead_out_are_refused(house, path):
    with pytest.raises(StageError, match="leads out of the folder") as caught:
        inside(house, path, where="here")
    assert str(house) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_folder_behind_a_link_holds_what_is_in_it(house):
    assert inside(house / "in", "a", where="here") == house / "in" / "a"
    with pytest.raises(StageError):
        inside(house / "in", "../a", where="here")


def test_regular_files_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "a") == read_regular(tmp_path / "link") == b"abc"
    with pytest.raises(StageError, match="3 bytes, more than 2"):
        read_regular(tmp_path / "a", largest=2)
    with pytest.raises(ModelError, match="No such file"):
        read_regular(tmp_path / "none", error=ModelError)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    refused = []

    def read():
        try:
            read_regular(path)
        except StageError as error:
            refused.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert refused == [f"{path}: not a regular file"]

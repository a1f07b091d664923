"""Artifacts: the manifest is last, one process makes one, and hashes are remembered."""

import hashlib
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from selectmoe_core.errors import StageError
from selectmoe_core.store import MANIFEST, SMALL, Artifact, FileHashes, Store, replacing, write_json

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make(store, facts=None):
    folder = store.folder("score", DIGEST)
    folder.mkdir(parents=True, exist_ok=True)
    artifact = Artifact("score", "length", DIGEST, folder, facts or {}, 1.5, {"seed": 3})
    artifact.save()
    return artifact


def test_a_folder_without_a_manifest_did_not_happen(store):
    folder = store.folder("score", DIGEST)
    assert folder.name == "score-0123456789ab"
    assert store.find("score", DIGEST) is None
    folder.mkdir(parents=True)
    (folder / "scores.parquet").write_text("half of it")
    assert store.find("score", DIGEST) is None


def test_what_was_saved_comes_back(store):
    saved = make(store, {"examples": 3, "text": "é\u2028"})
    assert store.find("score", DIGEST) == saved


def test_the_manifest_is_written_by_rename(store, monkeypatch):
    make(store, {"old": 1})
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "x")))
    with pytest.raises(OSError, match="x"):
        make(store, {"new": 2})
    monkeypatch.undo()
    assert store.find("score", DIGEST).facts == {"old": 1}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"stage": "score"}', '{"unknown": 1}', "\x00" * 40],
)
def test_a_damaged_manifest_is_no_artifact_and_named(store, text):
    folder = make(store).folder
    (folder / MANIFEST).write_text(text)
    assert store.find("score", DIGEST) is None
    assert store.damage("score", DIGEST) == f"{folder / MANIFEST} is damaged"
    assert (folder / MANIFEST).read_text() == text
    assert "is damaged" in store.clear_damage("score", DIGEST)
    assert not folder.exists()
    assert store.clear_damage("score", DIGEST) == ""


def test_a_manifest_that_is_not_utf8_is_damaged(store):
    folder = make(store).folder
    (folder / MANIFEST).write_bytes(b'{"stage": "\xff"}')
    assert store.find("score", DIGEST) is None
    assert "is damaged" in store.damage("score", DIGEST)


def test_the_manifest_of_another_artifact_is_damaged(store):
    folder = make(store).folder
    other = DIGEST[:12] + "f" * 52
    assert store.folder("score", other) == folder
    assert store.find("score", other) is None
    assert "is damaged" in store.damage("score", other)


def filled(store):
    folder = store.folder("score", DIGEST)
    for name, content in {
        "scores/part-0.bin": b"small",
        "empty": b"",
        "large": bytes(SMALL + 1),
        "README.md": b"for people",
        "stage.log": b"for people",
        "checkpoints/1/model": b"to go on from",
        "how.json": b"while it is made",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    Artifact("score", "length", DIGEST, folder).save(passing=("how.json",))
    return folder


def test_the_manifest_knows_every_file_and_the_hash_of_small_ones(store):
    folder = filled(store)
    small = hashlib.sha256(b"small").hexdigest()
    assert json.loads((folder / MANIFEST).read_text())["files"] == {
        "scores/part-0.bin": [5, small],
        "empty": [0, hashlib.sha256().hexdigest()],
        "large": [SMALL + 1, ""],
    }
    assert store.damage("score", DIGEST) == ""


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("scores/part-0.bin", None, "is missing"),
        ("scores/part-0.bin", b"", "has 0 bytes and not 5"),
        ("scores/part-0.bin", b"smaller", "has 7 bytes and not 5"),
        ("scores/part-0.bin", b"SMALL", "holds something else than what was written"),
        ("large", bytes(SMALL), f"has {SMALL:,} bytes and not {SMALL + 1:,}"),
        ("large", None, "is missing"),
        # Of a large file the size is known, of notes and of what is there to go on from nothing.
        ("large", b"\1" * (SMALL + 1), ""),
        ("README.md", b"", ""),
        ("stage.log", None, ""),
        ("checkpoints/1/model", None, ""),
        ("how.json", None, ""),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_named(store, name, content, problem):
    folder = filled(store)
    assert store.find("score", DIGEST) is not None
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    os.utime(folder, ns=(1, 1))
    fresh = Store(store.root)
    for look in (fresh, store):
        assert look.damage("score", DIGEST) == (f"{path} {problem}" if problem else "")
        assert (look.find("score", DIGEST) is None) == bool(problem)


def test_what_another_run_uses_is_not_removed(store):
    names = [("score", DIGEST), ("pool", DIGEST)]
    other = Store(store.root)
    with store.used(names), other.used(names):
        with pytest.raises(StageError, match="another run uses") as caught, other.unused(names):
            pass
        assert "--outputs" in caught.value.hint
    with other.unused(names):
        pass


def test_a_run_waits_while_another_one_removes(store):
    begun = threading.Event()

    def use():
        with store.used([("score", DIGEST)]):
            begun.set()

    thread = threading.Thread(target=use)
    with Store(store.root).unused([("score", DIGEST)]):
        thread.start()
        assert not begun.wait(0.2)
    assert begun.wait(20)
    thread.join()


def test_a_killed_run_uses_nothing(store):
    names = [("score", DIGEST)]
    with store.used(names):
        (file,) = store.root.glob("uses/*.use")
        left = file.read_text()
    assert not file.exists()
    file.write_text(left)
    with store.unused(names):
        assert not file.exists()


def test_thousands_of_artifacts_need_no_open_file_each(store):
    names = [("score", f"{number:064x}"[::-1]) for number in range(5000)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 40, before[1]))
    try:
        with (
            store.used(names),
            pytest.raises(StageError, match="another run uses"),
            store.unused(names[-1:]),
        ):
            pass
        with store.unused(names):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_removing_forgets(store):
    folder = make(store).folder
    store.remove("score", DIGEST)
    assert store.find("score", DIGEST) is None
    assert not folder.exists()
    store.remove("score", DIGEST)


# -------------------------------------------------------------------------------------- locks


def _hold(root, until, events):
    with Store(root).lock("score", DIGEST, lambda text: events.send(("told", text))):
        events.send(("in", os.getpid()))
        until.wait(60)
        events.send(("out", os.getpid()))


def _next(events):
    assert events.poll(60), "nothing happens"
    return events.recv()


def test_a_second_process_waits_and_says_for_whom(store):
    context = multiprocessing.get_context("fork")
    # A pipe, and no queue: what one sends before it lets go is there before the other goes on.
    (events, send), until = context.Pipe(duplex=False), context.Event()
    first, second = (
        context.Process(target=_hold, args=(store.root, until, send)) for _ in range(2)
    )
    first.start()
    assert _next(events) == ("in", first.pid)
    second.start()
    event, told = _next(events)
    assert event == "told"
    until.set()
    seen = [_next(events) for _ in range(3)]
    first.join()
    second.join()
    assert seen == [("out", first.pid), ("in", second.pid), ("out", second.pid)]
    assert f"process {first.pid}" in told
    assert "waiting" in told
    assert not list(store.root.glob("*.owner"))


def test_a_lock_is_free_again_after_an_error_and_after_a_kill(store):
    with pytest.raises(ZeroDivisionError), store.lock("score", DIGEST, print):
        _ = 1 / 0
    context = multiprocessing.get_context("fork")
    events, send = context.Pipe(duplex=False)
    process = context.Process(target=_hold, args=(store.root, context.Event(), send))
    process.start()
    _next(events)
    process.kill()
    process.join()
    told = []
    with store.lock("score", DIGEST, told.append):
        pass
    assert told == []


# ------------------------------------------------------------------------------------- hashes


@pytest.fixture
def hashed(monkeypatch):
    """Counts how often a file is really read."""
    import hashlib

    read = []
    real = hashlib.file_digest
    monkeypatch.setattr(
        "hashlib.file_digest", lambda file, kind: read.append(file.name) or real(file, kind)
    )
    return read


def test_a_hash_is_remembered_by_path_size_and_time(tmp_path, hashed):
    path, memory = tmp_path / "file", tmp_path / "memory" / "hashes.json"
    path.write_text("one")
    first = FileHashes(memory)
    digest = first.of(path)
    assert first.of(path) == digest
    first.save()
    assert FileHashes(memory).of(path) == digest
    assert len(hashed) == 1
    status = path.stat()
    path.write_text("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = FileHashes(memory).of(path)
    assert changed != digest
    assert len(hashed) == 2
    copy = tmp_path / "copy"
    copy.write_text("two")
    assert FileHashes(memory).of(copy) == changed
    assert len(hashed) == 3


def test_a_large_file_is_hashed_only_where_asked(tmp_path, hashed):
    path, memory = tmp_path / "large", tmp_path / "hashes.json"
    path.write_bytes(b"x" * 101)
    assert FileHashes(memory, limit=100).of(path) is None
    assert FileHashes(memory, limit=101).of(path) is not None
    whole = FileHashes(memory)
    digest = whole.of(path)
    whole.save()
    assert FileHashes(memory, limit=100).of(path) == digest


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_a_damaged_memory_is_forgotten(tmp_path, text):
    memory, path = tmp_path / "hashes.json", tmp_path / "file"
    memory.write_text(text)
    path.write_text("x")
    hashes = FileHashes(memory)
    assert hashes.of(path)
    hashes.save()
    assert isinstance(json.loads(memory.read_text()), dict)


def test_a_tree_counts_by_names_and_contents(tmp_path):
    def digest_of(files):
        folder = tmp_path / f"tree{digest_of.count}"
        digest_of.count += 1
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return FileHashes(None).of_tree(folder)

    digest_of.count = 0
    files = {"a": "1", "sub/b": "2"}
    same = digest_of(files)
    assert same == digest_of(dict(reversed(files.items())))
    assert same == digest_of({**files, ".hidden": "x", ".cache/lock": "y", "sub/.x/z": "w"})
    others = [{"a": "1"}, {"a": "2", "sub/b": "1"}, {"a": "1", "b": "2"}, {"a": "1", "sub/c": "2"}]
    assert len({same, *map(digest_of, others)}) == 5


def test_a_tree_with_a_large_file_is_not_hashed_in_passing(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 11)
    assert FileHashes(None, limit=10).of_tree(tmp_path) is None


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    circular: list = []
    circular.append(circular)
    with pytest.raises(ValueError, match="ircular"):
        write_json(path, circular)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_of_a_tree_is_that_of_its_sorted_names_and_hashes(tmp_path):
    folder, drawn = tmp_path / "tree", random.Random(5)
    found = []
    for number in range(60):
        path = folder / f"{number % 7}" / f"file{number:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.randbytes(drawn.randrange(300_000)))
        name = path.relative_to(folder).as_posix()
        found.append([name, hashlib.sha256(path.read_bytes()).hexdigest()])
    wanted = hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()
    assert FileHashes(None).of_tree(folder) == wanted
    assert FileHashes(None, limit=1000).of_tree(folder) is None


@pytest.mark.parametrize("options", [{}, {"durable": True}, {"alone": True}])
def test_a_file_is_replaced_whole_or_stays(tmp_path, options):
    path = tmp_path / "scores.bin"
    with replacing(path, **options) as temporary:
        temporary.write_bytes(b"first")
        assert not path.exists()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
    assert path.read_bytes() == b"first"
    with suppress(KeyboardInterrupt), replacing(path, **options) as temporary:
        temporary.write_bytes(b"sec")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path, synced = tmp_path / "part", []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.exists()))
    )
    with replacing(path) as temporary:
        temporary.write_bytes(b"12345")
    assert synced == []
    path.unlink()
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(b"12345")
    assert synced == [(5, False)]


def test_runs_that_were_killed_leave_one_temporary_file(tmp_path):
    path = tmp_path / "part"
    program = (
        "import os, sys; from pathlib import Path; from selectmoe_core.store import replacing\n"
        "with replacing(Path(sys.argv[1]), alone=True) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program, path], check=False)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["half"]


def test_what_comes_through_a_pipe_is_never_known(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    hashes = FileHashes(tmp_path / "memory.json")
    assert hashes.of_tree(tmp_path / "pipe") != hashes.of_tree(tmp_path / "pipe")


def test_names_that_are_not_utf8_come_back(tmp_path):
    write_json(tmp_path / "x.json", {"path": "caf\udce9", "text": "é"})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"path": "caf\udce9", "text": "é"}

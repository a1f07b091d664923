"""A pool tokenised by several processes: the bytes of one."""

import filecmp
import multiprocessing
import random

import numpy as np
import pytest
from random_rows import random_examples
from tokenizers_of import tokenizer_of

from selectmoe_core.data.examples import RawExample
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import ModelError
from selectmoe_core.tokens import encoding
from selectmoe_core.tokens import files as token_files
from selectmoe_core.tokens import tokenize as tokenising
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import encode, piece_of
from selectmoe_core.tokens.files import NOTHING, Kept, TokenFiles
from selectmoe_core.tokens.tokenize import ROWS, encode_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    rng = random.Random(7)
    folder = tmp_path_factory.mktemp("pool")
    raw = [RawExample(one.source, one.messages) for one in random_examples(rng, 5 * ROWS)]
    made = build_pool(raw, folder, on_reject="skip")
    assert len(made) > 2 * ROWS
    return made


def test_several_processes_write_the_same_bytes(pool, tmp_path):
    chat, tokenizer = ChatFormat(ChatConfig(max_length=30)), tokenizer_of("bytes-trimmed")
    advanced = []
    wanted = encode(pool.examples(), tmp_path / "one", chat, tokenizer)
    found = encode_pool(pool, tmp_path / "two", chat, tokenizer, advanced.append, processes=2)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 4
    same = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)
    assert same == (names, [], [])
    assert sum(advanced) == len(found) == len(pool)
    assert found.sources == wanted.sources


def test_a_failure_in_a_process_is_told(pool, tmp_path):
    chat, tokenizer = ChatFormat(ChatConfig(template="model")), tokenizer_of("bytes")
    with pytest.raises(ModelError, match="no chat template"):
        encode_pool(pool, tmp_path, chat, tokenizer, processes=2)


def test_a_small_pool_starts_no_process(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenising, "_pieces", None)
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")
    assert len(encode_pool(pool, tmp_path, chat, tokenizer)) == len(pool)


def test_processes_start_sooner_where_python_renders(pool, tmp_path, monkeypatch):
    started = []

    def pieces(pool, begin, chat, tokenizer, processes):
        started.append(processes)
        return iter(())

    monkeypatch.setattr(tokenising, "_pieces", pieces)
    monkeypatch.setattr(tokenising, "_cores", lambda: 3)
    monkeypatch.setattr(tokenising, "LARGE_RENDERED", len(pool))
    jinja = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chats = (ChatFormat(ChatConfig()), ChatFormat(ChatConfig(template="a file"), jinja))
    for chat in chats:
        encode_pool(pool, tmp_path / "one", chat, tokenizer_of("bytes"))
    assert started == [3]
    monkeypatch.setattr(tokenising, "LARGE", len(pool))
    for chat in chats:
        encode_pool(pool, tmp_path / "two", chat, tokenizer_of("bytes"))
    assert started == [3, 3, 3]


def test_an_interrupt_ends_the_processes_and_comes_out(pool, tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    chat, before = ChatFormat(ChatConfig()), set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        encode_pool(pool, tmp_path, chat, tokenizer_of("bytes"), interrupt, processes=2)
    assert set(multiprocessing.active_children()) <= before
    with pytest.raises(KeyboardInterrupt):
        encode_pool(pool, tmp_path, chat, tokenizer_of("bytes"), interrupt)


class StoppedError(Exception):
    pass


def stopped_after(rows):
    """Return an ``advance`` that stops whoever tells it of so many rows."""
    told = []

    def advance(more):
        told.append(more)
        if sum(told) >= rows:
            raise StoppedError

    return advance


def assert_same_files(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


@pytest.mark.parametrize("processes", [1, 2])
def test_what_an_interrupt_left_is_gone_on_with(pool, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(encoding, "BATCH", 200)
    chat, tokenizer = ChatFormat(ChatConfig(max_length=30)), tokenizer_of("bytes-trimmed")
    encode(pool.examples(), tmp_path / "whole", chat, tokenizer)
    folder, told, stops = tmp_path / "stopped", [], [1, len(pool) // 2, len(pool)]
    for stop in stops:
        before = Kept.of(folder)
        with pytest.raises(StoppedError):
            encode_pool(
                pool,
                folder,
                chat,
                tokenizer,
                stopped_after(stop - before.rows),
                processes=processes,
                kept=before,
            )
        kept = Kept.of(folder)
        assert kept.rows > before.rows
        for name in ("rows.bin", "ids.bin", "parts.bin"):  # a piece that was not all written
            with (folder / name).open("ab") as file:
                file.write(b"12345678" * random.Random(stop).randrange(40))
    assert Kept.of(folder).rows == len(pool)
    found = encode_pool(pool, folder, chat, tokenizer, told.append, kept=Kept.of(folder))
    assert (told, len(found)) == ([], len(pool))
    assert_same_files(folder, tmp_path / "whole")


def test_a_kill_costs_what_was_not_noted_yet(pool, tmp_path, monkeypatch):
    chat, tokenizer = ChatFormat(ChatConfig(max_length=30)), tokenizer_of("bytes")
    whole = encode(pool.examples(), tmp_path / "whole", chat, tokenizer)
    files = TokenFiles(tmp_path / "killed", NOTHING)  # and never left, as if killed
    for start, seconds in ((0, 0.0), (300, 0.0), (600, 1000.0)):
        monkeypatch.setattr(token_files, "KEEP_SECONDS", seconds)
        files.add(piece_of(pool.examples(start, start + 300), chat, tokenizer))
    kept = Kept.of(tmp_path / "killed")
    assert (kept.rows, kept.tokens) == (600, whole.lengths[:600].sum())
    encode_pool(pool, tmp_path / "killed", chat, tokenizer, kept=kept)
    assert_same_files(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("harm", ["no note", "half a note", "other note", "short file", "no file"])
def test_nothing_is_kept_that_may_not_be_whole(pool, tmp_path, harm):
    chat, tokenizer = ChatFormat(ChatConfig(max_length=30)), tokenizer_of("bytes")
    with pytest.raises(StoppedError):
        encode_pool(pool, tmp_path, chat, tokenizer, stopped_after(1))
    note, ids = tmp_path / "kept.json", tmp_path / "ids.bin"
    assert Kept.of(tmp_path).rows
    if harm == "no note":
        note.unlink()
    elif harm == "half a note":
        note.write_bytes(note.read_bytes()[:20])
    elif harm == "other note":
        note.write_text("[1, 2]")
    elif harm == "short file":
        ids.write_bytes(ids.read_bytes()[:-1])
    else:
        ids.unlink()
    assert Kept.of(tmp_path) == NOTHING
    wanted = encode(pool.examples(), tmp_path / "whole", chat, tokenizer)
    found = encode_pool(pool, tmp_path, chat, tokenizer, kept=Kept.of(tmp_path))
    assert (len(found), found.tokens) == (len(wanted), wanted.tokens)
    for name in ("rows.bin", "ids.bin", "parts.bin", "sources.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_error_is_told_even_if_nothing_can_be_noted(pool, tmp_path, monkeypatch):
    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(token_files.os, "fsync", full)
    chat = ChatFormat(ChatConfig(max_length=30))
    with pytest.raises(StoppedError):
        encode_pool(pool, tmp_path, chat, tokenizer_of("bytes"), stopped_after(1))
    assert Kept.of(tmp_path) == NOTHING


@pytest.mark.parametrize("view", [False, True])
def test_joined_rows_are_the_rows_one_behind_another(pool, tmp_path, view):
    chat, tokenizer = ChatFormat(ChatConfig(max_length=30)), tokenizer_of("bytes")
    encoded = encode_pool(pool, tmp_path, chat, tokenizer)
    if view:
        encoded = encoded.take(np.random.default_rng(1).permutation(len(pool))[:400])
    for rows in ([], [0], [3, 4, 5], range(len(encoded)), [9, 2, 2, 7], [len(encoded) - 1, 0]):
        wanted = [encoded[row] for row in rows]
        found = encoded.joined(np.array(rows, dtype=np.int64))
        assert found.lengths.tolist() == [len(one.ids) for one in wanted]
        assert found.ids.tolist() == [token for one in wanted for token in one.ids.tolist()]
        assert found.parts.tolist() == [part for one in wanted for part in one.parts.tolist()]
        assert found.sums(found.parts == 2).tolist() == [sum(one.parts == 2) for one in wanted]
        some = np.arange(len(wanted))[::-2]
        places = found.places(some)
        assert found.ids[places].tolist() == [
            token for row in some for token in wanted[row].ids.tolist()
        ]

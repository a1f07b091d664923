"""A pool tokenised by several processes: the bytes of one."""

import filecmp
import multiprocessing
import random

import numpy as np
import pytest
from test_encoding import random_examples
from tokenizers_of import tokenizer_of

from selectmoe_core import tokenising
from selectmoe_core.chat import ChatConfig, ChatFormat
from selectmoe_core.encoding import encode
from selectmoe_core.errors import ModelError
from selectmoe_core.examples import RawExample
from selectmoe_core.pool_build import build_pool
from selectmoe_core.tokenising import ROWS, encode_pool


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

    def pieces(pool, chat, tokenizer, processes):
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

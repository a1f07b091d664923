"""Tokens read while they are written, against the same tokens read when all are there."""

import itertools
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from random_rows import random_examples
from tokenizers_of import tokenizer_of

from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode, piece_of, write_pieces
from selectmoe_core.tokens.files import NOTHING, ROWS, Kept, TokenFiles, rows_written
from selectmoe_core.tokens.partial import PartialEncoded

CHAT = ChatFormat(ChatConfig(max_length=40))
TOKENIZER = tokenizer_of("bytes")


class Writer:
    """A thread that writes pieces of an encoding; piece ``n`` waits for ``let(n)``."""

    def __init__(self, folder, examples, cuts):
        self.pieces = [examples[a:b] for a, b in itertools.pairwise(cuts)]
        self.gates = [threading.Event() for _ in self.pieces]
        self.rows = 0
        self.thread = ThreadPoolExecutor(1)

        def add(rows):
            self.rows += rows

        def pieces():
            for gate, piece in zip(self.gates, self.pieces, strict=True):
                assert gate.wait(120)
                yield piece_of(piece, CHAT, TOKENIZER)

        made = self.thread.submit(write_pieces, pieces(), folder, CHAT, add)
        self.tokens = PartialEncoded(
            folder,
            CHAT,
            whole=lambda: made.result() if made.done() else None,
            rows_written=lambda: self.rows,
        )

    def let(self, number):
        self.gates[number].set()

    def let_all(self):
        for gate in self.gates:
            gate.set()


def assert_same(one, other):
    for name in ("ids", "parts", "starts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_first_rows_are_there_before_the_last_are_made(tmp_path):
    examples = random_examples(random.Random(), 12)
    whole = encode(examples, tmp_path / "whole", CHAT, TOKENIZER)
    writer = Writer(tmp_path / "growing", examples, [0, 5, 9, 12])
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(writer.tokens.joined, np.arange(3, 7))
        writer.let(0)
        assert_same(writer.tokens.joined(np.arange(5)), whole.joined(np.arange(5)))
        assert writer.tokens[4].ids.tolist() == whole[4].ids.tolist()
        assert not waiting.done()  # row 6 is of the second piece
        writer.let(1)
        assert_same(waiting.result(120), whole.joined(np.arange(3, 7)))
        lengths = reader.submit(lambda: writer.tokens.lengths)
        last = reader.submit(lambda: writer.tokens[-1])
        assert not lengths.done()
        writer.let(2)
        assert lengths.result(120).tolist() == whole.lengths.tolist()
        assert last.result(120).ids.tolist() == whole[11].ids.tolist()


def test_once_all_is_there_it_is_an_encoding_like_any_other(tmp_path):
    examples = random_examples(random.Random(), 9)
    whole = encode(examples, tmp_path / "whole", CHAT, TOKENIZER)
    writer = Writer(tmp_path / "growing", examples, [0, 4, 9])
    writer.let_all()
    tokens = writer.tokens
    assert len(tokens) == 9
    assert tokens.sources == whole.sources
    assert (tokens.tokens, tokens.cut.tolist()) == (whole.tokens, whole.cut.tolist())
    assert [one.ids.tolist() for one in tokens] == [one.ids.tolist() for one in whole]
    assert_same(tokens.take([7, 2]).joined(np.arange(2)), whole.joined(np.array([7, 2])))
    copy = pickle.loads(pickle.dumps(tokens))
    assert type(copy) is Encoded
    assert_same(copy.joined(np.arange(9)), whole.joined(np.arange(9)))


def test_random_readers_see_what_is_there_in_the_end(tmp_path):
    rng = random.Random()
    examples = random_examples(rng, 60)
    whole = encode(examples, tmp_path / "whole", CHAT, TOKENIZER)
    cuts = [0, *sorted(rng.sample(range(1, 60), 8)), 60]
    writer = Writer(tmp_path / "growing", examples, cuts)

    def read(seed):
        own = random.Random(seed)
        for _ in range(20):
            rows = np.array(own.choices(range(60), k=own.randrange(1, 9)))
            rows = rows if own.random() < 0.5 else np.arange(rows.min(), rows.max() + 1)
            assert_same(writer.tokens.joined(rows), whole.joined(rows))

    with ThreadPoolExecutor(4) as readers:
        done = [readers.submit(read, rng.random()) for _ in range(4)]
        for number in range(len(cuts) - 1):
            writer.let(number)
        for one in done:
            one.result(120)


def test_whoever_waits_is_told_that_no_more_will_come(tmp_path):
    examples = random_examples(random.Random(), 6)
    writer = Writer(tmp_path, examples, [0, 3, 6])
    writer.pieces[1] = None  # fails as soon as it is let
    writer.let(0)
    assert len(writer.tokens.joined(np.arange(3)).lengths) == 3
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(writer.tokens.joined, np.array([5]))
        writer.let(1)
        with pytest.raises(TypeError):
            waiting.result(120)
    with pytest.raises(TypeError):
        len(writer.tokens)


def test_another_process_follows_what_is_written(tmp_path):
    examples, made = random_examples(random.Random(), 12), threading.Event()
    whole = encode(examples, tmp_path / "whole", CHAT, TOKENIZER)
    folder = tmp_path / "followed"
    tokens = PartialEncoded(
        folder,
        CHAT,
        whole=lambda: Encoded.open(folder, CHAT) if made.is_set() else None,
        rows_written=lambda: rows_written(folder),
    )
    assert tokens.now() is tokens
    assert rows_written(folder) == 0  # there is no folder yet
    with ThreadPoolExecutor(2) as reader:
        waiting = reader.submit(tokens.joined, np.arange(3, 7))
        lengths = reader.submit(lambda: tokens.lengths)
        with TokenFiles(folder, NOTHING) as files:
            files.add(piece_of(examples[:5], CHAT, TOKENIZER))
            assert_same(tokens.joined(np.arange(5)), whole.joined(np.arange(5)))
            assert tokens[4].ids.tolist() == whole[4].ids.tolist()
            assert not waiting.done()  # row 6 is of the second piece
            files.add(piece_of(examples[5:], CHAT, TOKENIZER))
            assert_same(waiting.result(120), whole.joined(np.arange(3, 7)))
            assert not lengths.done()  # these may not be all
        made.set()
        assert lengths.result(120).tolist() == whole.lengths.tolist()
    assert tokens.now().sources == whole.sources
    assert tokens.now() is tokens.now()


@pytest.mark.parametrize("behind", ["ids.bin", "parts.bin"])
def test_a_piece_counts_once_all_files_hold_it(tmp_path, behind):
    examples = random_examples(random.Random(), 7)
    encode(examples, tmp_path, CHAT, TOKENIZER)
    assert rows_written(tmp_path) == 7
    whole = (tmp_path / behind).read_bytes()
    (tmp_path / behind).write_bytes(whole[:-1])
    assert rows_written(tmp_path) == 0
    (tmp_path / behind).write_bytes(whole)
    with (tmp_path / ROWS).open("ab") as rows:
        rows.write(b"half a row")
    assert rows_written(tmp_path) == 7


def test_what_lies_behind_the_kept_rows_is_cut_off_before_anyone_reads(tmp_path):
    whole = encode(random_examples(random.Random(), 7), tmp_path, CHAT, TOKENIZER)
    kept = Kept(3, int(whole.lengths[:3].sum()))
    kept.cut(tmp_path)
    assert rows_written(tmp_path) == 3
    NOTHING.cut(tmp_path)
    NOTHING.cut(tmp_path / "nothing there")
    assert rows_written(tmp_path) == 0


@pytest.mark.parametrize("asked", ["lengths", "sources", "tokens", "counted"])
def test_who_waits_for_all_rows_does_not_keep_the_maker_from_making_them(tmp_path, asked):
    """The maker asks the same of what it has made; in Python 3.11 that once took a common lock."""
    examples, begun = random_examples(random.Random(), 6), threading.Event()

    def make():
        assert begun.wait(120)
        whole = encode(examples, tmp_path, CHAT, TOKENIZER)
        return whole, getattr(whole, asked)

    with ThreadPoolExecutor(2) as threads:
        made = threads.submit(make)
        tokens = PartialEncoded(
            tmp_path,
            CHAT,
            whole=lambda: made.result()[0] if made.done() else None,
            rows_written=lambda: 0,
        )
        found = threads.submit(getattr, tokens, asked)
        begun.set()
        np.testing.assert_equal(found.result(120), made.result(120)[1])

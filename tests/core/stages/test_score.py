"""Shards on their way: read lazily, written in order by a thread, stopped by the first failure."""

import random
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from random_rows import random_examples
from tokenizers_of import tokenizer_of

from selectmoe_core.data.examples import RawExample
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.scores import ShardScores
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Inputs, Job, Need, Shard
from selectmoe_core.runtime.distributed import World
from selectmoe_core.stages.scoring import token_stream as coming_module
from selectmoe_core.stages.scoring.pipeline import AHEAD, Stretch, shards, written_behind
from selectmoe_core.stages.scoring.score import _shard_size
from selectmoe_core.stages.scoring.token_stream import coming_tokens
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode, piece_of, write_pieces
from selectmoe_core.tokens.files import NOTHING, Kept, TokenFiles
from selectmoe_core.tokens.streaming import Growing


@pytest.fixture
def pool(tmp_path):
    import random

    (tmp_path / "pool").mkdir()
    raw = [RawExample(one.source, one.messages) for one in random_examples(random.Random(3), 60)]
    return build_pool(raw, tmp_path / "pool", on_reject="skip")


def shard(number):
    return Shard(number, np.arange(number * 10, number * 10 + 3 + number), ())


def scores(number):
    return ShardScores(np.full(3 + number, float(number)))


def test_a_stretch_is_the_pools_rows_and_reads_them_once(pool, monkeypatch):
    wanted = list(pool.examples(5, 12))
    reads = []
    real = type(pool).examples
    monkeypatch.setattr(type(pool), "examples", lambda *a: reads.append(a[1:]) or real(*a))
    found = Stretch(pool, 5, 12)
    assert (len(found), reads) == (7, [])
    assert list(found) == wanted
    assert [found[2], found[-1], *found[1:3]] == [wanted[2], wanted[-1], *wanted[1:3]]
    assert reads == [(5, 12)]
    assert [stop - start for _, start, stop in shards(pool, 7)][:-1] == [7] * (len(pool) // 7)


def test_shards_are_written_in_order_and_counted():
    written, told, threads = [], [], set()

    def write(one, its):
        threads.add(threading.get_ident())
        written.append((one.number, its.score[0]))

    with written_behind(write, told.append) as hand_over:
        for number in range(7):
            hand_over(shard(number), lambda number=number: scores(number))
    assert written == [(number, float(number)) for number in range(7)]
    assert told == [3 + number for number in range(7)]
    assert threads.isdisjoint({threading.get_ident()})
    assert len(threads) == 1


def test_no_more_shards_are_under_way_than_said():
    gate, begun, held = threading.Event(), [], threading.Event()

    def hold():
        held.set()
        gate.wait(20)
        return scores(0)

    def hand_over_all():
        with written_behind(lambda *_: None, lambda _: None) as hand_over:
            for number in range(6):
                begun.append(number)
                hand_over(shard(number), hold)

    thread = threading.Thread(target=hand_over_all)
    thread.start()
    assert held.wait(20)
    thread.join(0.3)
    assert begun == list(range(AHEAD + 1))
    gate.set()
    thread.join(20)
    assert begun == list(range(6))


def written(numbers, *, fails_at=None, error=ValueError, then=None):
    """Hand over shards; return those that were written, and what was raised."""
    done = []

    def write(one, _):
        if one.number == fails_at:
            raise error("no")
        done.append(one.number)

    try:
        with written_behind(write, lambda _: None) as hand_over:
            for number in numbers:
                hand_over(shard(number), lambda: scores(0))
            if then is not None:
                raise then
    except (ValueError, KeyboardInterrupt) as raised:
        return done, raised
    return done, None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_written_behind_a_shard_that_failed(error):
    done, raised = written(range(9), fails_at=2, error=error)
    assert done == [0, 1]
    assert type(raised) is error


def test_what_was_handed_over_before_a_failure_is_written():
    mine = ValueError("the scorer failed")
    assert written(range(2), then=mine) == ([0, 1], mine)


@pytest.mark.parametrize(
    ("examples", "wanted", "size"),
    [
        (10, None, 2048),
        (270_000, None, 2048),
        (10_000_000, None, 10_000),
        (10**8, None, 65_536),
        (10, 7, 7),
    ],
)
def test_shards_grow_with_the_pool_and_keep_their_size(tmp_path, examples, wanted, size):
    own = {"shard_examples": wanted}
    context = SimpleNamespace(folder=tmp_path, spec=SimpleNamespace(own=own))
    assert _shard_size(context, range(examples)) == size
    own["shard_examples"] = 3
    assert _shard_size(context, range(5)) == size


CHAT = ChatFormat(ChatConfig(max_length=40))


@pytest.fixture
def coming(tmp_path, monkeypatch):
    """Contexts of a scorer that reads tokens, which a function of the test makes."""

    def context(encoded, *, size=1, chat=None, rank=0):
        ref = ModelRef("somewhere")
        models = SimpleNamespace(tokenizer=lambda _: tokenizer_of("bytes"))
        world = World(rank, size, rank)
        job = Job(seed=0, inputs=Inputs(model=ref), models=models, encoded=encoded, world=world)
        component = SimpleNamespace(needs=lambda _: frozenset({Need.TOKENS}))
        monkeypatch.setattr(coming_module, "tokens_folder", lambda *_: tmp_path / "tokens")
        monkeypatch.setattr(
            coming_module, "encoded_pool", lambda _work, _chat, asked, *_: encoded(asked)
        )
        job = job if chat is None else replace(job, chat=chat)
        return SimpleNamespace(
            job=job, component=component, config=None, spec=None, folder=tmp_path
        )

    return context


def written_to(folder, pieces):
    """What stands for ``encoded_pool``: writes these pieces."""
    return lambda _work, chat, _tokenizer, _progress, written: write_pieces(
        pieces, folder, chat, written
    )


@pytest.mark.parametrize("size", [1, 2])
def test_tokens_are_made_once_and_meanwhile(coming, size):
    gate, asked = threading.Event(), []
    if size > 1:
        gate.set()  # several processes make them first of all

    def encoded(tokenizer):
        asked.append(tokenizer)
        assert gate.wait(20)
        return f"tokens of {tokenizer.eos_token}"

    with coming_tokens(coming(encoded, size=size)) as found:
        assert found.tokens.done() is (size > 1)
        if size == 1:
            assert isinstance(found.job.encoded(tokenizer_of("bytes")), Growing)
        gate.set()
        assert found.tokens.result() == "tokens of </s>"
        assert found.job.encoded(tokenizer_of("bytes")) == "tokens of </s>"
        assert len(asked) == 1
        found.job.encoded(tokenizer_of("llama"))
        assert asked == [tokenizer_of("bytes"), tokenizer_of("llama")]


def test_a_shard_is_scored_before_the_last_example_is_tokenised(tmp_path, coming, monkeypatch):
    examples, gate = random_examples(random.Random(), 8), threading.Event()
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")

    def pieces():
        yield piece_of(examples[:4], chat, tokenizer)
        assert gate.wait(20)
        yield piece_of(examples[4:], chat, tokenizer)

    context = coming(None, chat=chat)
    monkeypatch.setattr(coming_module, "encoded_pool", written_to(tmp_path / "tokens", pieces()))
    whole = encode(examples, tmp_path / "whole", chat, tokenizer)
    with coming_tokens(context) as found:
        tokens = found.job.encoded(tokenizer)
        first = tokens.joined(np.arange(4))
        assert not found.tokens.done()
        gate.set()
        for rows, of in ((np.arange(4), first), (np.arange(4, 8), tokens.joined(np.arange(4, 8)))):
            assert of.ids.tolist() == whole.joined(rows).ids.tolist()


def test_where_scoring_stops_no_more_is_tokenised(tmp_path, coming, monkeypatch):
    examples, written, gate = random_examples(random.Random(), 8), [], threading.Event()
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")

    def pieces():
        for one in examples:
            yield piece_of([one], chat, tokenizer)
            written.append(one)
            assert gate.wait(20)

    context = coming(None, chat=chat)
    monkeypatch.setattr(coming_module, "encoded_pool", written_to(tmp_path / "tokens", pieces()))
    stage = coming_tokens(context)
    found = stage.__enter__()
    found.job.encoded(tokenizer).joined(np.arange(1))
    monkeypatch.setattr(coming_module, "LAST_WORDS", 0.05)  # a thread that takes its time
    stage.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    gate.set()
    assert isinstance(found.tokens.exception(20), CancelledError)
    assert len(written) < 3


def test_where_scoring_stops_the_tokens_so_far_are_kept(tmp_path, coming, monkeypatch):
    def pieces():
        for one in random_examples(random.Random(), 1000):
            yield piece_of([one], chat, tokenizer)
            time.sleep(0.01)

    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")
    context = coming(None, chat=chat)
    monkeypatch.setattr(coming_module, "encoded_pool", written_to(tmp_path / "tokens", pieces()))
    stage = coming_tokens(context)
    found = stage.__enter__()
    found.job.encoded(tokenizer).joined(np.arange(3))
    stage.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert found.tokens.done()
    assert 3 <= Kept.of(tmp_path / "tokens").rows < 1000


def test_who_waits_for_tokens_of_another_run_ends_at_once(coming, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(coming_module, "LAST_WORDS", 20)
    with pytest.raises(KeyboardInterrupt), coming_tokens(coming(lambda _: gate.wait(20))) as found:
        raise KeyboardInterrupt
    assert not found.tokens.done()
    gate.set()


@pytest.fixture
def one_host(monkeypatch):
    """Two processes of one host; the list says how many times this one has met the other."""
    met = []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(coming_module, "barrier", lambda: met.append(1))
    return met


def test_the_first_of_two_processes_meets_the_other_once_the_files_are_ready(
    tmp_path, coming, monkeypatch, one_host
):
    examples, gate = random_examples(random.Random(), 8), threading.Event()
    chat, tokenizer = ChatFormat(ChatConfig()), tokenizer_of("bytes")

    def made(*order):
        assert gate.wait(20)
        assert not one_host
        order[-1](0)
        return written_to(tmp_path / "tokens", [piece_of(examples, chat, tokenizer)])(*order)

    context = coming(None, chat=chat, size=2)
    monkeypatch.setattr(coming_module, "encoded_pool", made)
    threading.Timer(0.1, gate.set).start()
    with coming_tokens(context) as found:
        assert one_host == [1]
        assert len(found.tokens.result(20)) == len(found.job.encoded(tokenizer)) == 8


def test_the_second_of_two_processes_reads_what_the_first_has_written(
    tmp_path, coming, monkeypatch, one_host
):
    examples, chat, tokenizer = random_examples(random.Random(), 8), CHAT, tokenizer_of("bytes")
    whole = encode(examples, tmp_path / "whole", chat, tokenizer)
    made = []
    monkeypatch.setattr(
        coming_module, "found_tokens", lambda *_: Encoded.open(*made) if made else None
    )
    with coming_tokens(coming(None, chat=chat, size=2, rank=1)) as found:
        assert (one_host, found.tokens) == ([1], None)
        tokens = found.job.encoded(tokenizer)
        with TokenFiles(tmp_path / "tokens", NOTHING) as files:
            files.add(piece_of(examples[:5], chat, tokenizer))
            assert tokens.joined(np.arange(5)).ids.tolist() == (
                whole.joined(np.arange(5)).ids.tolist()
            )
            files.add(piece_of(examples[5:], chat, tokenizer))
        made += [tmp_path / "tokens", chat]
        assert tokens.lengths.tolist() == whole.lengths.tolist()


def test_a_failure_of_the_tokenizer_is_told_to_whoever_asks(coming):
    def encoded(_):
        raise ValueError("no tokens")

    with (
        coming_tokens(coming(encoded)) as found,
        pytest.raises(ValueError, match="no tokens"),
    ):
        found.job.encoded(tokenizer_of("bytes")).joined(np.arange(2))


def test_a_scorer_that_reads_no_tokens_gets_its_job_as_it_is(coming):
    context = coming(None)
    context.component.needs = lambda _: frozenset({Need.POOL})
    with coming_tokens(context) as found:
        assert (found.job, found.tokens) == (context.job, None)

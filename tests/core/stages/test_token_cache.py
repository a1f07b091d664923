"""The pool's tokens: made once, read meanwhile, by this process and by others of its host."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from random_rows import random_examples
from tokenizers_of import tokenizer_of

from selectmoe_core.data.examples import RawExample
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Inputs, Job, Need
from selectmoe_core.runtime.distributed import World
from selectmoe_core.stages import token_cache
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.stages.token_cache import TokenCache, encoded_pool, tokens_meanwhile
from selectmoe_core.store import Store
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded, encode, piece_of, write_pieces
from selectmoe_core.tokens.files import Kept
from selectmoe_core.tokens.partial import PartialEncoded

CHAT = ChatFormat(ChatConfig(max_length=40))
TOKENIZER = tokenizer_of("bytes")
ROWS = 40


@pytest.fixture
def spec(tmp_path):
    """A node that reads a pool of some rows."""
    raw = [RawExample(one.source, one.messages) for one in random_examples(random.Random(), ROWS)]
    (tmp_path / "pool").mkdir()
    build_pool(raw, tmp_path / "pool", on_reject="skip")
    return NodeSpec(
        key="score", stage="score", where="[score]", kind="scorer", component="some", options={},
        own={}, digest="d", folder=tmp_path / "score", store=tmp_path / "store",
        inputs={"pool": tmp_path / "pool"}, input_digests={"pool": "p"}, model=None, seed=0,
        chat={}, device="cpu", dtype="float32", threads=1,
    )  # fmt: skip


@pytest.fixture
def whole(tmp_path, spec):
    """What the pool's tokens have to be."""
    from selectmoe_core.data.pool import Pool

    examples = Pool.open(spec.inputs["pool"]).examples()
    return encode(examples, tmp_path / "whole", CHAT, TOKENIZER)


def context_of(spec, *, rank=0, size=1, needs=frozenset({Need.TOKENS, Need.MODEL})):
    """What a scorer that reads tokens is executed with."""
    job = Job(
        seed=0,
        chat=CHAT,
        inputs=Inputs(model=ModelRef("somewhere")),
        models=SimpleNamespace(tokenizer=lambda _: TOKENIZER),
        world=World(rank, size, rank),
    )
    job = replace(job, encoded=lambda asked: encoded_pool(spec, CHAT, asked, job.progress))
    component = SimpleNamespace(needs=lambda _: needs)
    return SimpleNamespace(job=job, component=component, config=None, spec=spec)


class Gate:
    """Stands for ``encode_pool``: writes piece after piece of the pool, each when it is let."""

    def __init__(self, monkeypatch, rows=5):
        self.rows = rows
        self.open, self.calls, self.written = threading.Semaphore(0), 0, 0
        monkeypatch.setattr(token_cache, "encode_pool", self)

    def __call__(self, pool, folder, chat, tokenizer, advance, *, kept):
        self.calls += 1

        def pieces():
            for start in range(kept.rows, len(pool), self.rows):
                assert self.open.acquire(timeout=120)
                stop = min(start + self.rows, len(pool))
                yield piece_of(pool.examples(start, stop), chat, tokenizer)
                self.written = stop

        return write_pieces(pieces(), folder, chat, advance, kept)

    def let_all(self):
        self.open.release(1000)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def assert_same(found, wanted, rows):
    found, wanted = found.joined(rows), wanted.joined(rows)
    for name in ("ids", "parts", "starts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_tokens_are_made_once_for_all_who_ask(spec, whole, gate):
    gate.let_all()
    cache = TokenCache(spec, CHAT, TOKENIZER)
    assert cache.find() is None
    made = cache.make(context_of(spec).job.progress)
    assert_same(made, whole, np.arange(len(whole)))
    assert_same(cache.find(), whole, np.arange(len(whole)))
    assert encoded_pool(spec, CHAT, TOKENIZER, context_of(spec).job.progress).folder == made.folder
    assert gate.calls == 1
    other = TokenCache(spec, CHAT, tokenizer_of("llama"))
    assert other.folder != cache.folder
    assert TokenCache(spec, ChatFormat(ChatConfig(max_length=41)), TOKENIZER).folder != cache.folder


def test_a_shard_is_read_before_the_last_example_is_tokenised(spec, whole, gate):
    with tokens_meanwhile(context_of(spec)) as (job, tokens):
        gate.open.release(2)
        assert_same(job.encoded(TOKENIZER), whole, np.arange(7))
        assert isinstance(job.encoded(TOKENIZER), PartialEncoded)
        assert gate.written < len(whole)
        gate.let_all()
        assert tokens.sources == whole.sources
        assert type(job.encoded(TOKENIZER)) is Encoded
        assert_same(job.encoded(TOKENIZER), whole, np.arange(len(whole)))
    assert gate.calls == 1


def test_another_tokenizer_gets_tokens_of_its_own(spec, gate):
    gate.let_all()
    with tokens_meanwhile(context_of(spec)) as (job, tokens):
        other = job.encoded(tokenizer_of("llama"))
        assert other.folder != tokens.folder
        assert len(other) == len(tokens)


def test_where_scoring_stops_no_more_is_tokenised(spec, gate, monkeypatch):
    monkeypatch.setattr(token_cache, "LAST_WORDS", 0.05)  # a thread that takes its time
    stage = tokens_meanwhile(context_of(spec))
    job, _ = stage.__enter__()
    gate.open.release(1)
    job.encoded(TOKENIZER).joined(np.arange(1))
    stage.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    gate.let_all()
    time.sleep(0.3)
    assert gate.written <= 10
    assert TokenCache(spec, CHAT, TOKENIZER).find() is None


def test_where_scoring_stops_the_tokens_so_far_are_kept_and_the_next_run_goes_on(
    spec, whole, monkeypatch
):
    gate = Gate(monkeypatch, rows=1)
    stage = tokens_meanwhile(context_of(spec))
    job, _ = stage.__enter__()
    gate.open.release(3)
    job.encoded(TOKENIZER).joined(np.arange(3))
    # The thread waits for a fourth row. It may have the others once the stage has begun to end.
    wait = token_cache.wait
    monkeypatch.setattr(token_cache, "wait", lambda *of: (gate.let_all(), wait(*of)))
    stage.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    kept = Kept.of(TokenCache(spec, CHAT, TOKENIZER).folder).rows
    assert 3 <= kept < len(whole)
    with tokens_meanwhile(context_of(spec)) as (job, tokens):
        assert_same(job.encoded(TOKENIZER), whole, np.arange(kept))
        assert len(tokens) == len(whole)
    assert gate.calls == 2


def test_who_waits_for_tokens_of_another_run_ends_at_once(spec, monkeypatch):
    monkeypatch.setattr(token_cache, "LAST_WORDS", 60)
    cache, said = TokenCache(spec, CHAT, TOKENIZER), []
    begin = time.monotonic()
    with Store(spec.store).lock(token_cache.STAGE, cache.digest, said.append):
        stage = tokens_meanwhile(context_of(spec))
        stage.__enter__()
        stage.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert time.monotonic() - begin < 50


@pytest.fixture
def met(monkeypatch):
    """Two processes of one host; the list says how many times this one has met the other."""
    times = []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(token_cache, "barrier", lambda: times.append(1))
    return times


def test_the_first_of_two_processes_meets_the_other_once_old_rows_are_cut_off(
    spec, gate, met, monkeypatch
):
    cut = threading.Event()
    monkeypatch.setattr(Kept, "cut", lambda *_: (cut.wait(120), met or None))
    threading.Timer(0.1, cut.set).start()
    with tokens_meanwhile(context_of(spec, size=2)):
        assert cut.is_set()
        assert met == [1]
        gate.let_all()


def test_the_second_of_two_processes_reads_what_the_first_writes(spec, whole, gate, met):
    with tokens_meanwhile(context_of(spec, size=2, rank=1)) as (follower, _):
        tokens = follower.encoded(TOKENIZER)
        assert met == [1]
        with tokens_meanwhile(context_of(spec, size=2)), ThreadPoolExecutor(1) as reader:
            gate.open.release(1)
            assert_same(tokens, whole, np.arange(5))
            waiting = reader.submit(tokens.joined, np.arange(6))
            time.sleep(0.1)
            assert not waiting.done()
            gate.let_all()
            assert waiting.result(120).ids.tolist() == whole.joined(np.arange(6)).ids.tolist()
            assert tokens.lengths.tolist() == whole.lengths.tolist()
    assert gate.calls == 1


def test_processes_of_several_hosts_wait_for_the_last_row(spec, whole, gate, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    context, asked = context_of(spec, size=2), []
    monkeypatch.setattr(token_cache, "barrier", lambda: pytest.fail("nobody has to meet here"))
    gate.let_all()
    real = context.job.encoded
    context.job = replace(context.job, encoded=lambda one: asked.append(one) or real(one))
    with tokens_meanwhile(context) as (job, tokens):
        assert type(tokens) is Encoded
        assert job.encoded(TOKENIZER) is tokens
        assert len(asked) == 1


def test_a_failure_of_the_tokenizer_reaches_whoever_asks(spec, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no tokens")

    monkeypatch.setattr(token_cache, "encode_pool", fail)
    with (
        tokens_meanwhile(context_of(spec)) as (job, _),
        pytest.raises(ValueError, match="no tokens"),
    ):
        job.encoded(TOKENIZER).joined(np.arange(2))


def test_a_scorer_that_reads_no_tokens_gets_its_job_as_it_is(spec):
    context = context_of(spec, needs=frozenset({Need.POOL}))
    with tokens_meanwhile(context) as (job, tokens):
        assert (job, tokens) == (context.job, None)

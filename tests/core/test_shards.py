"""Shards on their way: read lazily, written in order by a thread, stopped by the first failure."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from test_encoding import random_examples
from tokenizers_of import tokenizer_of

from selectmoe_core.distributed import World
from selectmoe_core.examples import RawExample
from selectmoe_core.models import ModelRef
from selectmoe_core.pool_build import build_pool
from selectmoe_core.protocols import Inputs, Job, Need, Shard
from selectmoe_core.scores import ShardScores
from selectmoe_core.stages.coming import coming_tokens
from selectmoe_core.stages.score import _shard_size
from selectmoe_core.stages.shards import AHEAD, Stretch, shards, written_behind


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
    context = SimpleNamespace(folder=tmp_path, work=SimpleNamespace(own=own))
    assert _shard_size(context, range(examples)) == size
    own["shard_examples"] = 3
    assert _shard_size(context, range(5)) == size


def coming(tmp_path, encoded, *, size=1):
    """A context of a scorer that reads tokens, which ``encoded`` makes."""
    ref = ModelRef("somewhere")
    models = SimpleNamespace(tokenizer=lambda _: tokenizer_of("bytes"))
    world = World(0, size, 0)
    job = Job(seed=0, inputs=Inputs(model=ref), models=models, encoded=encoded, world=world)
    component = SimpleNamespace(needs=lambda _: frozenset({Need.TOKENS}))
    return SimpleNamespace(job=job, component=component, config=None, folder=tmp_path)


@pytest.mark.parametrize("size", [1, 2])
def test_tokens_are_made_once_and_meanwhile(tmp_path, size):
    gate, asked = threading.Event(), []
    if size > 1:
        gate.set()  # several processes make them first of all

    def encoded(tokenizer):
        asked.append(tokenizer)
        assert gate.wait(20)
        return f"tokens of {tokenizer.eos_token}"

    with coming_tokens(coming(tmp_path, encoded, size=size)) as found:
        assert found.tokens.done() is (size > 1)
        gate.set()
        assert found.job.encoded(tokenizer_of("bytes")) == "tokens of </s>"
        assert found.tokens.result() == "tokens of </s>"
        assert len(asked) == 1
        found.job.encoded(tokenizer_of("llama"))
        assert asked == [tokenizer_of("bytes"), tokenizer_of("llama")]


def test_a_failure_of_the_tokenizer_is_told_to_whoever_asks(tmp_path):
    def encoded(_):
        raise ValueError("no tokens")

    with (
        coming_tokens(coming(tmp_path, encoded)) as found,
        pytest.raises(ValueError, match="no tokens"),
    ):
        found.job.encoded(tokenizer_of("bytes"))


def test_a_scorer_that_reads_no_tokens_gets_its_job_as_it_is(tmp_path):
    context = coming(tmp_path, None)
    context.component.needs = lambda _: frozenset({Need.POOL})
    with coming_tokens(context) as found:
        assert (found.job, found.tokens) == (context.job, None)

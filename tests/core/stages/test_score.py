"""Shards on their way: read lazily, written in order by a thread, stopped by the first failure."""

import random
import threading
import time

import numpy as np
import pytest
from random_rows import random_examples

from selectmoe_core.data.examples import RawExample
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.data.scores import ShardScores
from selectmoe_core.plugin.protocols import Shard
from selectmoe_core.stages.scoring.pipeline import AHEAD, Stretch, written_behind


@pytest.fixture
def pool(tmp_path):

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
        gate.wait(120)
        return scores(0)

    def hand_over_all():
        with written_behind(lambda *_: None, lambda _: None) as hand_over:
            for number in range(6):
                begun.append(number)
                hand_over(shard(number), hold)

    thread = threading.Thread(target=hand_over_all)
    thread.start()
    assert held.wait(120)
    last = time.monotonic() + 120
    while len(begun) <= AHEAD:
        assert time.monotonic() < last
        time.sleep(0.01)
    thread.join(0.3)  # the time for one too many
    assert begun == list(range(AHEAD + 1))
    gate.set()
    thread.join(120)
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

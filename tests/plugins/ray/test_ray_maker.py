"""Handing out shards to many actors that die: Ray and time are simulated, so that 64 are few."""

import heapq
import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from selectmoe_core import StageError
from selectmoe_core.execution import ShardWork
from selectmoe_ray import maker as maker_module
from selectmoe_ray.actor import Reply
from selectmoe_ray.maker import RayMaker
from selectmoe_ray.tries import DIED, Tries, Try

CUTS = [(number, number * 4, number * 4 + 4) for number in range(2000)]


class World:
    """A cluster in simulated time: actors make shards one by one, and die when they are told to.

    Args:
        rng: durations and moments.
        poison: shards that kill their process, and those that raise.
    """

    def __init__(self, rng, kills=0, kill=(), fail=(), node_of=lambda _: "node"):
        self.rng = rng
        self.killing, self.failing, self.node_of = set(kill), set(fail), node_of
        self.now, self.number = 0.0, itertools.count()
        self.events, self.done, self.dead = [], {}, set()
        self.made, self.begun = {}, Counter()
        self.actors, self.lost_nodes = [], set()
        self.most, self.refs = 0, 0
        for moment in [rng.uniform(1, 30) for _ in range(kills)]:
            self.at(moment, self._kill_one)

    def at(self, moment, call):
        heapq.heappush(self.events, (moment, next(self.number), call))

    def _kill_one(self):
        alive = [actor for actor in self.actors if actor not in self.dead]
        if alive:
            self.die(self.rng.choice(alive))

    def die(self, actor):
        self.dead.add(actor)
        for ref in actor.waiting:
            self.done[ref] = _death()
        actor.waiting = []

    # What the maker uses of ray.

    def remote(self, _kind):
        return self

    def options(self, **options):
        assert options["max_restarts"] == 0
        self.remote = lambda *_: SimulatedActor(self)
        return self

    def wait(self, refs, num_returns, timeout):
        self.most = max(self.most, len(refs))
        end = self.now + timeout
        while not any(ref in self.done for ref in refs) and self.events and timeout:
            moment, _, call = heapq.heappop(self.events)
            self.now = max(self.now, moment)
            call()
            if moment > end:
                break
        ready = [ref for ref in refs if ref in self.done][:num_returns]
        if not ready:
            self.now = max(self.now, end)
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref):
        found = self.done[ref]
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self, actor):
        self.dead.add(actor)


def _death():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


class SimulatedActor:
    def __init__(self, world):
        self.world, self.waiting = world, []
        world.actors.append(self)
        self.cuts = {}
        for name in ("open", "make", "lives", "finish", "close"):
            setattr(self, name, Method(self, name))


class Method:
    def __init__(self, actor, name):
        self.actor, self.name = actor, name

    def remote(self, argument=None):
        world, actor = self.actor.world, self.actor
        ref = object()
        if actor in world.dead:
            world.done[ref] = _death()
        elif self.name == "make":
            actor.waiting.append(ref)
            actor.cuts[ref] = argument
            if len(actor.waiting) == 1:
                world.at(world.now + world.rng.uniform(0.1, 2), lambda: self._work(ref))
        else:
            reply = Reply(node=world.node_of(actor), versions=("1",))
            actor.waiting.append(ref)
            world.at(world.now + 1, lambda: self._answer(ref, reply))
        return ref

    def _answer(self, ref, reply):
        if ref in self.actor.waiting:
            self.actor.waiting.remove(ref)
            self.actor.world.done[ref] = reply

    def _work(self, ref):
        actor, world = self.actor, self.actor.world
        if ref not in actor.waiting:
            return
        number = actor.cuts[ref][0]
        assert number not in world.made, "a shard was made after it was finished"
        world.begun[number] += 1
        if number in world.killing:
            world.die(actor)
            return
        actor.waiting.remove(ref)
        if number in world.failing:
            world.done[ref] = Reply("told to fail")
        else:
            world.made[number] = True
            if world.rng.random() < 0.01 and actor.waiting:  # it dies before it can reply
                actor.waiting.append(ref)
                world.die(actor)
                return
            world.done[ref] = Reply(kernel="one")
        if actor.waiting:
            following = actor.waiting[0]
            world.at(world.now + world.rng.uniform(0.1, 2), lambda: self._work(following))


def made_by(world, monkeypatch, cuts=CUTS, *, actors=64, attempts=3):
    class Time:
        monotonic = staticmethod(lambda: world.now)

        @staticmethod
        def sleep(seconds):
            world.now += seconds

    monkeypatch.setattr(maker_module, "ray", world)
    monkeypatch.setattr(maker_module, "time", Time)
    monkeypatch.setattr(maker_module, "lives", lambda name: name not in world.lost_nodes)
    work = ShardWork("score", Path("node.json"), "cpu", 1, lambda number: number in world.made)
    options = {"actors": actors, "gpus": 0, "cpus": 1, "attempts": attempts, "start_seconds": 60}
    maker = RayMaker(work, options)
    heard = Counter()

    def made(number, _kernel):
        heard[number] += 1

    failed = maker.make(cuts, made)
    return maker, failed, heard


@pytest.mark.parametrize("seed", range(20))
def test_a_fifth_of_64_actors_dies_and_every_shard_is_made_once(seed, monkeypatch):
    world = World(random.Random(seed), kills=13)
    _, failed, heard = made_by(world, monkeypatch)
    assert failed == []
    assert set(world.made) == set(range(2000))
    assert heard == Counter(range(2000))  # each is reported once
    assert len(world.actors) >= 64 + 13
    assert world.most <= 64 * 2 + 1


@pytest.mark.parametrize("seed", range(10))
def test_poison_fails_alone_however_it_dies(seed, monkeypatch):
    rng = random.Random(seed)
    poison = rng.sample(range(2000), 8)
    world = World(rng, kills=6, kill=poison[:4], fail=poison[4:])
    _, failed, heard = made_by(world, monkeypatch, attempts=2)
    assert sorted(one.cut[0] for one in failed) == sorted(poison)
    assert {one.error for one in failed if one.cut[0] in poison[:4]} == {DIED}
    assert set(heard) == set(range(2000)) - set(poison)
    assert all(world.begun[number] == 2 for number in poison[4:])
    assert all(world.begun[number] <= 3 for number in poison[:4])


def test_a_lost_node_is_no_try(monkeypatch):
    world = World(random.Random(1), kills=40)
    world.lost_nodes.add("node")
    _, failed, heard = made_by(world, monkeypatch, attempts=1)
    assert failed == []
    assert heard == Counter(range(2000))


def test_no_actor_ends_the_stage_in_the_end(monkeypatch):
    world = World(random.Random(1))
    monkeypatch.setattr(Method, "_answer", lambda *_: None)  # none ever opens
    with pytest.raises(StageError, match="no actor with 1 cores and 0 GPUs has started in 60 s"):
        made_by(world, monkeypatch)


def test_actors_that_cannot_open_end_the_stage(monkeypatch):
    world = World(random.Random(1))
    answer = Method._answer
    broken = Reply("the model is not there", "load it")
    monkeypatch.setattr(Method, "_answer", lambda self, ref, _: answer(self, ref, broken))
    with pytest.raises(StageError, match="no actor could open: the model is not there") as caught:
        made_by(world, monkeypatch)
    assert caught.value.hint == "load it"


def test_nodes_of_other_versions_end_the_stage(monkeypatch):
    world = World(random.Random(1))
    answer = Method._answer
    count = itertools.count()

    def other(self, ref, reply):
        versions = (f"torch 2.{next(count)}",)
        answer(self, ref, reply._replace(versions=versions) if reply.versions else reply)

    monkeypatch.setattr(Method, "_answer", other)
    with pytest.raises(StageError, match=r"different versions: torch 2\.0, and torch 2\.1"):
        made_by(world, monkeypatch)


def test_no_more_actors_than_shards(monkeypatch):
    world = World(random.Random(1))
    _, failed, heard = made_by(world, monkeypatch, CUTS[:5])
    assert failed == []
    assert len(heard) == 5
    assert len(world.actors) <= 5


def test_shards_of_one_death_are_tried_alone():
    tries = Tries(CUTS[:3], attempts=2)
    pair = [tries.waiting.popleft(), tries.waiting.popleft()]
    tries.suspect(pair)
    assert [(one.failed, one.alone) for one in tries.suspects] == [(0, True), (0, True)]
    for failed in (1, 2):
        tries.suspect([tries.suspects.popleft()])
        assert len(tries.failed) == failed - 1
        if failed == 1:
            tries.again(tries.suspects.pop())  # its node was lost
    assert [one.cut for one in tries.failed] == [CUTS[0]]
    assert tries.failed[0].tries == 2
    assert [one.cut for one in tries.suspects] == [CUTS[1]]
    tries.count(Try(CUTS[2]), "broken")
    assert tries.waiting[-1].failed == 1
    assert bool(tries)


@pytest.mark.slow
def test_what_is_in_flight_does_not_grow_with_the_shards(monkeypatch):
    """100,000 shards by 64 actors, a fifth of which die: never more than two shards an actor."""
    cuts = [(number, number, number + 1) for number in range(100_000)]
    world = World(random.Random(1), kills=13)
    _, failed, heard = made_by(world, monkeypatch, cuts)
    assert failed == []
    assert len(heard) == 100_000
    assert world.most <= 64 * 2 + 1

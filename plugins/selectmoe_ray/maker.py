"""Handing out shards to a pool of actors that come and go."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from selectmoe_core import StageError
from selectmoe_core.execution import Cut, FailedShard, ShardWork
from selectmoe_ray.actor import Reply, ShardActor
from selectmoe_ray.cluster import connected, lives, room
from selectmoe_ray.tries import Tries, Try

log = logging.getLogger("selectmoe.ray")

AHEAD = {"cuda": 3, "cpu": 2}
"""Shards that an actor has at the same time: one is computed, others are written or wait."""
LOOK = 1.0
"""Seconds that the process waits at most before it looks whether actors are missing."""
ROOM_SECONDS = 5.0
"""Seconds between two looks for nodes that joined the cluster."""
LONGEST_REST = 30.0
"""Seconds at most before an actor takes the place of one that could not open."""
NODE_SECONDS = 5.0
"""Seconds until a lost node is known to be lost, before a suspect is blamed."""
CLOSING = 5.0
"""Seconds that actors have to close their parts."""


@dataclass(eq=False)
class Hand:
    """An actor.

    Attributes:
        actor: its handle.
        node: the id of its node, once it has opened.
        running: the shards it has, by the reference of their replies.
        asked: the reference of its answer that it lives, before it gets a suspect.
    """

    actor: Any
    node: str = ""
    running: dict[Any, Try] = field(default_factory=dict)
    asked: Any = None

    @property
    def alone(self) -> bool:
        """Whether it works on a suspect, or will."""
        return self.asked is not None or any(one.alone for one in self.running.values())


@contextmanager
def ray_maker(work: ShardWork, options: Mapping[str, Any]) -> Iterator["RayMaker"]:
    """Connect to the cluster, and yield what has shards made there."""
    with connected(options["address"]):
        maker = RayMaker(work, options)
        try:
            yield maker
        finally:
            maker.close()


class RayMaker:
    """Has the shards of a node made by actors; the replies are counted in this process.

    Ray's own restarts and retries are off: only this process knows which shards exist, and which of
    them was in work when a process died.

    Args:
        work: the node.
        options: ``actors``, ``gpus``, ``cpus``, ``attempts`` and ``start_seconds``.
    """

    def __init__(self, work: ShardWork, options: Mapping[str, Any]) -> None:
        self.work, self.options = work, options
        self.hands: list[Hand] = []
        self.opening: dict[Any, Hand] = {}
        self.tries = Tries((), options["attempts"])
        self.made: Callable[[int, str], None] = lambda _number, _kernel: None
        self.versions: tuple[str, ...] = ()
        self.deaths = 0
        self._since = time.monotonic()
        self._rest = 0.0
        self._room = (0.0, 1)
        threads = {"OMP_NUM_THREADS": str(work.threads)}
        self._kind = ray.remote(ShardActor).options(
            num_gpus=options["gpus"],
            num_cpus=options["cpus"],
            max_restarts=0,
            max_concurrency=AHEAD[work.device] + 1,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": threads} if work.device == "cpu" else None,
        )

    def make(self, todo: Sequence[Cut], made: Callable[[int, str], None]) -> list[FailedShard]:
        """Have shards made; return those that failed too often."""
        self.tries, self.made = Tries(todo, self.options["attempts"]), made
        self._since = time.monotonic()
        while self.tries or any(hand.running for hand in self.hands):
            self._hire()
            self._hand_out()
            self._wait()
        return self.tries.failed

    def finish(self) -> None:
        """Let one actor end the stage."""
        last = Reply()
        for _ in range(self.options["attempts"]):
            while not self.hands:
                self._hire()
                self._wait()
            hand = self.hands[0]
            try:
                last = ray.get(hand.actor.finish.remote())
            except RayError:
                self._lose(hand)
                continue
            if not last.error:
                return
        raise StageError(
            f"the scores cannot be finished: {last.error or 'the process died'}", hint=last.hint
        )

    def close(self) -> None:
        """End all actors."""
        closing = [hand.actor.close.remote() for hand in self.hands]
        with suppress(RayError):
            ray.wait(closing, num_returns=len(closing), timeout=CLOSING) if closing else None
        for hand in (*self.hands, *self.opening.values()):
            with suppress(RayError, ValueError):
                ray.kill(hand.actor)

    def _hire(self) -> None:
        """Start actors while there are fewer than wanted, and no more than there are shards."""
        self._check_patience()
        if time.monotonic() < self._rest:
            return
        outstanding = len(self.tries.waiting) + len(self.tries.suspects)
        outstanding += sum(len(hand.running) for hand in self.hands)
        wanted = max(1, min(self._wanted(), outstanding))
        for _ in range(wanted - len(self.hands) - len(self.opening)):
            hand = Hand(self._kind.remote())
            self.opening[hand.actor.open.remote(str(self.work.file))] = hand

    def _wanted(self) -> int:
        if self.options["actors"] is not None:
            return int(self.options["actors"])
        at, count = self._room
        if time.monotonic() - at > ROOM_SECONDS:
            count = room(self.options["gpus"], self.options["cpus"])
            self._room = time.monotonic(), count
        return count

    def _check_patience(self) -> None:
        if self.hands:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self.options["start_seconds"]:
            asked = f"{self.options['cpus']:g} cores and {self.options['gpus']:g} GPUs"
            raise StageError(
                f"no actor with {asked} has started in {self.options['start_seconds']:g} s",
                hint="`ray status` shows what the cluster has and what it waits for; finished "
                "shards are kept",
            )

    def _hand_out(self) -> None:
        """Give every actor shards; one that takes a suspect has nothing else meanwhile."""
        tries, most = self.tries, AHEAD[self.work.device]
        # While suspects wait, the actor with the fewest shards gets no more, so that it is free.
        emptied = min(self.hands, key=lambda hand: (hand.alone, len(hand.running)), default=None)
        asked = sum(hand.asked is not None for hand in self.hands)
        for hand in self.hands:
            if len(tries.suspects) > asked and not hand.running and not hand.alone:
                # An actor that has died unnoticed must not count as a try of the suspect.
                hand.asked = hand.actor.lives.remote()
                asked += 1
            while (
                tries.waiting
                and not hand.alone
                and len(hand.running) < most
                and not (tries.suspects and hand is emptied)
            ):
                self._give(hand, tries.waiting.popleft())

    def _give(self, hand: Hand, one: Try) -> None:
        hand.running[hand.actor.make.remote(one.cut)] = one

    def _wait(self) -> None:
        """Wait a moment for replies, and settle what has come."""
        owners = {ref: hand for hand in self.hands for ref in hand.running}
        owners |= {hand.asked: hand for hand in self.hands if hand.asked is not None}
        refs = [*self.opening, *owners]
        if not refs:
            time.sleep(min(LOOK, 0.1))
            return
        ready, _ = ray.wait(refs, num_returns=1, timeout=LOOK)
        if ready:  # and those that came at the same moment
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if ref in self.opening:
                self._opened(ref)
            elif ref is owners[ref].asked:
                self._answered(owners[ref])
            elif ref in owners[ref].running:  # its actor may have been lost just now
                self._settle(owners[ref], ref)

    def _opened(self, ref: Any) -> None:  # noqa: ANN401
        hand = self.opening.pop(ref)
        try:
            reply: Reply = ray.get(ref)
        except RayError as error:
            self._not_opened(_first(error), "", lost=_node_died(error))
            return
        if reply.error:
            ray.kill(hand.actor)
            self._not_opened(reply.error, reply.hint, lost=False)
            return
        self.versions = self.versions or reply.versions
        if reply.versions != self.versions:
            raise StageError(
                f"the nodes of the cluster have different versions: {', '.join(self.versions)}, "
                f"and {', '.join(reply.versions)}",
                hint="install the same packages on all nodes; finished shards are kept",
            )
        hand.node = reply.node
        self.hands.append(hand)
        log.info("an actor has opened on node %s; there are %d", hand.node[:8], len(self.hands))

    def _not_opened(self, error: str, hint: str, *, lost: bool) -> None:
        """Rest before the next actor is tried; end the stage if no other one makes progress."""
        self.deaths += not lost
        log.warning("an actor could not open: %s", error)
        self._rest = time.monotonic() + min(LONGEST_REST, 0.5 * 2**self.deaths)
        if self.deaths >= self.options["attempts"] and not self.hands:
            raise StageError(f"no actor could open: {error}", hint=hint or "see run.log")

    def _answered(self, hand: Hand) -> None:
        """Give a suspect to an actor that lives and has nothing else."""
        asked, hand.asked = hand.asked, None
        try:
            ray.get(asked)
        except RayError as error:
            self._lose(hand, error)
            return
        if self.tries.suspects:
            self._give(hand, self.tries.suspects.popleft())

    def _settle(self, hand: Hand, ref: Any) -> None:  # noqa: ANN401
        try:
            reply: Reply = ray.get(ref)
        except RayError as error:
            self._lose(hand, error)
            return
        one = hand.running.pop(ref)
        if reply.error:
            log.warning("shard %d failed: %s", one.cut[0], reply.error)
            self.tries.count(one, reply.error)
        else:
            self._is_made(one, reply.kernel)

    def _is_made(self, one: Try, kernel: str = "") -> None:
        self.deaths = 0
        self.made(one.cut[0], kernel)

    def _lose(self, hand: Hand, error: RayError | None = None) -> None:
        """Take back the shards of an actor that died; those that exist are made."""
        self.hands.remove(hand)
        with suppress(RayError, ValueError):
            ray.kill(hand.actor)  # where it only does not answer as it should
        running = list(hand.running.values())
        hand.running.clear()
        hand.asked = None
        lost = _node_died(error) or not lives(hand.node)
        if not lost and any(one.alone for one in running):
            lost = _vanishes(hand.node)
        log.warning(
            "lost %s on node %s with %d shards in work",
            "a node" if lost else "an actor",
            hand.node[:8],
            len(running),
        )
        unmade = []
        for one in running:
            if self.work.is_made(one.cut[0]):
                self._is_made(one)
            else:
                unmade.append(one)
        if lost:
            for one in reversed(unmade):
                self.tries.again(one)
        else:
            self.tries.suspect(unmade)


def _vanishes(node: str) -> bool:
    """Wait a moment whether a node follows its actor: the cluster may learn of it later."""
    last = time.monotonic() + NODE_SECONDS
    while time.monotonic() < last:
        if not lives(node):
            return True
        time.sleep(NODE_SECONDS / 10)
    return False


def _node_died(error: RayError | None) -> bool:
    """Return whether Ray says that an actor died with its node."""
    return bool(getattr(error, "preempted", False)) or "its node has died" in str(error or "")


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]

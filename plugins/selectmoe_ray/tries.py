"""How often each shard was tried, and which of them may be to blame for a process that died."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from selectmoe_core.execution import Cut, FailedShard

DIED = "its process died: killed, or out of memory?"


@dataclass(frozen=True)
class Try:
    """A shard to make.

    Attributes:
        cut: the shard.
        failed: how often it failed.
        alone: whether it was in work when a process died: it is tried with nothing beside it, so
            that the next death has one cause.
    """

    cut: Cut
    failed: int = 0
    alone: bool = False


class Tries:
    """The shards that wait, those that wait for an actor of their own, and those that failed.

    Args:
        todo: the shards to make, in order.
        attempts: how often a shard is tried before it counts as failed.
    """

    def __init__(self, todo: Iterable[Cut], attempts: int) -> None:
        self.attempts = attempts
        self.waiting = deque(map(Try, todo))
        self.suspects: deque[Try] = deque()
        self.failed: list[FailedShard] = []

    def __bool__(self) -> bool:
        return bool(self.waiting or self.suspects)

    def again(self, one: Try) -> None:
        """Put back a shard that failed through no fault of its own: its node was lost."""
        (self.suspects if one.alone else self.waiting).appendleft(one)

    def count(self, one: Try, error: str) -> None:
        """Count a failure of a shard; try it again, or give it up."""
        failed = one.failed + 1
        if failed >= self.attempts:
            self.failed.append(FailedShard(one.cut, failed, error))
        elif one.alone:
            self.suspects.append(replace(one, failed=failed))
        else:
            self.waiting.append(replace(one, failed=failed))

    def suspect(self, together: Iterable[Try]) -> None:
        """Take back shards that were in work when their process died.

        The first death counts for none of them: nobody knows which was the cause, or whether one
        had been begun. Each is tried again with nothing beside it, and those tries count.
        """
        for one in together:
            if one.alone:
                self.count(one, DIED)
            else:
                self.suspects.append(replace(one, alone=True))

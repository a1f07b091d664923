"""What a stage makes of each shard, and how it is kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from selectmoe_core.plugin.protocols import Job, Shard
from selectmoe_core.stages.scoring.cuts import Cut
from selectmoe_core.tokens.encoding import Encoded

MadeT = TypeVar("MadeT")


@dataclass(frozen=True)
class FailedShard:
    """A shard that could not be made.

    Attributes:
        cut: the shard.
        tries: how often it was tried.
        error: what went wrong the last time.
    """

    cut: Cut
    tries: int
    error: str


@dataclass(frozen=True)
class Bar:
    """The examples of all shards, those that are done, the shards to make, and the beginning."""

    total: int
    done: int
    todo: Sequence[Cut]
    since: float


@dataclass(frozen=True)
class Work(Generic[MadeT]):
    """What a stage makes of each shard, and how it is kept.

    Attributes:
        verb: the method of the opened part that makes it, also shown beside the bar.
        done: what an example is afterwards, for messages.
        opened: opens the part for a job.
        path: the file that exists when a shard, known by its number, is made.
        write: checks and writes what was made of a shard; called in a thread.
        remove_damaged: removes damaged shards of an earlier run, and says which.
        resumes: called before the first shard with the number of examples that are done.
        at_last: called in the first process with the opened part, when all shards are made.
        is_whole: whether ``at_last`` was called for the shards that are there.
        kernel: returns which implementation made a shard, if that matters.
        same_kernel: raises if a kernel is not that of the shards before.
        leave_out: writes shards that could not be made, so that no row of them is selected;
            called after all others are made. ``None``: such a shard ends the stage.
        settle: changes what was made where the pool's tokens, if the part reads any, demand it.
    """

    verb: str
    done: str
    opened: Callable[[Job], AbstractContextManager[Any]]
    path: Callable[[int], Path]
    write: Callable[[Shard, MadeT], None]
    remove_damaged: Callable[[Sequence[Cut]], Iterator[str]]
    resumes: Callable[[int], None] = lambda _: None
    at_last: Callable[[Any], None] | None = None
    is_whole: Callable[[], bool] = lambda: True
    settle: Callable[[Encoded, Shard, MadeT], MadeT] = lambda _tokens, _shard, made: made
    kernel: Callable[[MadeT], str | None] = lambda _: None
    same_kernel: Callable[[str | None], None] = lambda _: None
    leave_out: Callable[[Sequence[FailedShard]], None] | None = None

    def beginner(self, part: Any) -> Callable[[Shard], Callable[[], MadeT]]:  # noqa: ANN401
        """Return what begins a shard with an opened part, and returns what waits for it."""
        begin: Callable[[Shard], Callable[[], MadeT]] | None = getattr(part, "begin", None)
        make: Callable[[Shard], MadeT] = getattr(part, self.verb)
        return begin or (lambda shard: partial(_given, make(shard)))

    def is_made(self, number: int) -> bool:
        """Return whether a shard is made."""
        return self.path(number).is_file()


def _given(made: MadeT) -> MadeT:
    return made

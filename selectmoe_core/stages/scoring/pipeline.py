"""The pipeline of shards: read on demand, computed in advance, written by a thread."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar, overload

from selectmoe_core.data.examples import Example
from selectmoe_core.data.pool import Pool
from selectmoe_core.plugin.protocols import Shard
from selectmoe_core.runtime.progress import Advance

AHEAD = 2
"""Shards that may be computed, on a device or not, while an earlier one is written."""

MadeT = TypeVar("MadeT")
"""What a stage makes of a shard: scores, vectors."""


class Stretch(Sequence[Example]):
    """The examples of rows ``start`` to ``stop``: read once, and only on first use.

    A part that reads tokens does not use them, and building them would take more time than all its
    other work on the host.
    """

    def __init__(self, pool: Pool, start: int, stop: int) -> None:
        self._pool = pool
        self._start = start
        self._stop = stop

    @cached_property
    def _read(self) -> list[Example]:
        return list(self._pool.examples(self._start, self._stop))

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        return self._read[place]

    def __iter__(self) -> Iterator[Example]:
        return iter(self._read)


@contextmanager
def written_behind(
    write: Callable[[Shard, MadeT], None], advance: Advance
) -> Iterator[Callable[[Shard, Callable[[], MadeT]], None]]:
    """Yield a function that passes a shard to a thread, which fetches and writes what was made.

    With the shard it takes a function that waits for the device, if there is one, and returns what
    was made.

    Shards are written in the order in which they are passed. If one fails, no later one is
    written, and its error is raised by the next call or at the end. If the block fails, shards
    that were passed before are still written.

    Args:
        write: writes one shard; called in the thread.
        advance: called with the number of written examples, in the block's own thread.
    """
    waiting: deque[tuple[int, Future[None]]] = deque()
    failed = threading.Event()

    def settle(shard: Shard, made: Callable[[], MadeT]) -> None:
        if failed.is_set():
            return
        try:
            write(shard, made())
        except BaseException:
            failed.set()
            raise

    def collect(most: int) -> None:
        while waiting and (len(waiting) > most or waiting[0][1].done()):
            examples, future = waiting.popleft()
            future.result()
            advance(examples)

    with ThreadPoolExecutor(1, "selectmoe-write") as thread:

        def hand_over(shard: Shard, made: Callable[[], MadeT]) -> None:
            waiting.append((len(shard.rows), thread.submit(settle, shard, made)))
            collect(AHEAD)

        yield hand_over
        collect(0)

"""Shards that other processes make: this one hands them out, counts them and ends the stage.

The other processes may be on other hosts, and may come and go. They write the same files by rename
as processes of this host do, so nothing but numbers passes through whoever runs them.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol

import numpy as np

from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import StageError, shown
from selectmoe_core.plugin.loading import load
from selectmoe_core.plugin.protocols import Shard
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.scoring.cuts import Cut
from selectmoe_core.stages.scoring.pipeline import Stretch
from selectmoe_core.stages.scoring.work import Bar, FailedShard, MadeT, Work
from selectmoe_core.stages.token_cache import tokens_meanwhile
from selectmoe_core.store import replacing
from selectmoe_core.tokens.encoding import Encoded

log = logging.getLogger("selectmoe.shards")

FAILED = "failed_shards.jsonl"
"""The examples of shards that could not be made, a line for each."""
NAMED = 3
"""Failed shards that a message names; the file has all."""


@dataclass(frozen=True)
class ShardWork:
    """Shards to make, for whoever has them made.

    Attributes:
        key: the node's name.
        file: the node's file; ``open_shards`` of ``selectmoe_core.execution`` takes it.
        device: ``cpu`` or ``cuda``.
        threads: torch threads of a process on the CPU.
        is_made: returns whether the shard with a number exists.
    """

    key: str
    file: Path
    device: str
    threads: int
    is_made: Callable[[int], bool]


class ShardMaker(Protocol):
    """Has shards made in other processes."""

    def make(self, todo: Sequence[Cut], made: Callable[[int, str], None]) -> Sequence[FailedShard]:
        """Have shards made, each by one process; return those that could not be made.

        Args:
            todo: the shards: number, first row, and the row after the last.
            made: called in this thread when a shard exists, with its number and what
                ``OpenShards.make`` returned for it.
        """
        ...

    def finish(self) -> None:
        """Let one process call ``OpenShards.finish``, after all shards are made."""
        ...


MakerFactory = Callable[[ShardWork, Mapping[str, Any]], AbstractContextManager[ShardMaker]]


def make_elsewhere(context: Context, pool: Pool, work: Work[MadeT], bar: Bar) -> None:
    """Have the missing shards made by the maker that the node names.

    Raises:
        StageError: a shard could not be made; all others are.
    """
    how = context.spec.maker
    assert how is not None
    open_maker: MakerFactory = load(how["by"]).resolve()  # type: ignore[assignment]
    spec, waiting = context.spec, {number: stop - start for number, start, stop in bar.todo}
    asked = ShardWork(spec.key, Path(how["file"]), spec.device, spec.threads, work.is_made)
    with (
        open_maker(asked, how["options"]) as maker,
        context.job.progress.task(work.verb, bar.total, done=bar.done) as advance,
    ):

        def made(number: int, kernel: str) -> None:
            if kernel:
                work.same_kernel(kernel)
            advance(waiting.pop(number))

        begin = time.monotonic()
        failed = sorted(maker.make(bar.todo, made), key=lambda one: one.cut)
        seconds = time.monotonic() - begin
        log.info("%s: %d shards %s in %.2f s", spec.key, len(bar.todo), work.done, seconds)
        if failed:
            _leave_out(context, pool, work, failed, skip=bool(how["skip_failed"]))
        if work.at_last is not None:
            maker.finish()


def forget_failed(folder: Path, path: Callable[[int], Path]) -> None:
    """Remove what an earlier, unfinished run wrote for shards that failed: they are tried again.

    Args:
        folder: the artifact's folder.
        path: returns the file of a shard.
    """
    listed = folder / FAILED
    if listed.is_file():
        for number in {json.loads(line)["shard"] for line in listed.open(encoding="utf-8")}:
            path(number).unlink(missing_ok=True)
        listed.unlink()


def _leave_out(
    context: Context, pool: Pool, work: Work[MadeT], failed: Sequence[FailedShard], *, skip: bool
) -> None:
    """Write which examples a failure is about; leave them out, or raise a ``StageError``."""
    path = context.folder / FAILED
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for shard in failed:
            for line in _lines(pool, shard):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    examples = sum(shard.cut[2] - shard.cut[1] for shard in failed)
    count = f"{len(failed)} shard{'s' * (len(failed) > 1)} of {examples:,} examples"
    named = "; ".join(_described(pool, shard) for shard in failed[:NAMED])
    more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
    what = f"{count} could not be {work.done}: {named}{more}. Their examples are listed in {path}"
    if not skip:
        hint = (
            "all other shards are kept: fix the cause and run again, or go on without these "
            "examples with skip_failed_shards = true in [executor]"
        )
        raise StageError(what, hint=hint)
    if work.leave_out is None:
        hint = f"every example needs its place here: fix the cause and run again ({work.verb})"
        raise StageError(what, hint=hint)
    print(f"  warning: {context.spec.key}: {what}", file=sys.stderr)  # noqa: T201
    log.warning("%s: %s", context.spec.key, what)
    work.leave_out(failed)


def _described(pool: Pool, shard: FailedShard) -> str:
    _, start, stop = shard.cut
    places = [pool.meta(row).get("where", "") for row in (start, stop - 1)]
    where = f" ({places[0]} to {places[1]})" if all(places) else ""
    tries = f"{shard.tries} tr{'ies' if shard.tries > 1 else 'y'}"
    return f"rows {start} to {stop - 1}{where} after {tries}: {shown(shard.error, 200)}"


def _lines(pool: Pool, shard: FailedShard) -> Iterator[dict[str, Any]]:
    number, start, stop = shard.cut
    for batch in pool.batches(start, stop):
        names = ("id", "source", "meta")
        for identity, source, meta in zip(
            *(batch.column(name).to_pylist() for name in names), strict=True
        ):
            place = {"where": (meta or {}).get("where"), "source": source}
            yield {"shard": number, "id": identity.hex(), **place, "error": shard.error}


class OpenShards(Generic[MadeT]):
    """Makes single shards of a node with its part opened once.

    All calls of the part come from one thread, because torch's modes belong to a thread; another
    thread writes, so that a device computes meanwhile. ``make`` may be called from several threads.

    Args:
        context: the node.
        pool: the examples.
        work: what is made of a shard.
    """

    def __init__(self, context: Context, pool: Pool, work: Work[MadeT]) -> None:
        self._context, self._pool, self._work = context, pool, work
        self._computing = ThreadPoolExecutor(1, "selectmoe-compute")
        self._writing = ThreadPoolExecutor(1, "selectmoe-write")
        self._held = ExitStack()
        self._part: Any = None
        self._tokens: Encoded | None = None
        self._ready = self._last = time.monotonic()
        self._examples = 0

    def open(self) -> None:
        """Open the part."""
        self._computing.submit(self._open).result()

    def close(self) -> None:
        """Close the part."""
        seconds = self._last - self._ready
        what = f"{self._context.spec.key}: {self._examples} examples {self._work.done}"
        log.info("%s in %.2f s", what, seconds)
        self._computing.submit(self._held.close).result()
        for thread in (self._computing, self._writing):
            thread.shutdown()

    def make(self, cut: Cut) -> str:
        """Make a shard unless it exists; return its kernel, or nothing where none is known."""
        number, start, stop = cut
        if self._work.is_made(number):
            return ""
        shard = Shard(number, np.arange(start, stop), Stretch(self._pool, start, stop))
        ready = self._computing.submit(self._begin, shard).result()
        return self._writing.submit(self._write, shard, ready).result()

    def finish(self) -> None:
        """Do what remains once every shard of the pool is made."""
        if self._work.at_last is not None:
            self._computing.submit(self._work.at_last, self._part).result()

    def _open(self) -> None:
        job, self._tokens = self._held.enter_context(tokens_meanwhile(self._context))
        self._part = self._held.enter_context(self._work.opened(job))
        self._ready = self._last = time.monotonic()

    def _begin(self, shard: Shard) -> Callable[[], MadeT]:
        return self._work.beginner(self._part)(shard)

    def _write(self, shard: Shard, ready: Callable[[], MadeT]) -> str:
        made = ready()
        if self._tokens is not None:
            made = self._work.settle(self._tokens, shard, made)
        self._work.write(shard, made)
        self._examples, self._last = self._examples + len(shard.rows), time.monotonic()
        return self._work.kernel(made) or ""


@contextmanager
def opened_shards(context: Context, pool: Pool, work: Work[MadeT]) -> Iterator[OpenShards[MadeT]]:
    """Open the part of a node, and close it at the end of the block."""
    shards = OpenShards(context, pool, work)
    try:
        shards.open()
        yield shards
    finally:
        shards.close()

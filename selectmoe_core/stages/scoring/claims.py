"""Shards among processes: a free process claims the next shard by creating a file for it.

A process on a slower GPU, or with longer examples, takes fewer shards, and all processes end at
about the same time. A claim is valid for one launch: the first process removes the claims of the
launch before, so that a process that died loses only its unfinished shards.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from selectmoe_core.runtime.distributed import World, barrier
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.stages.scoring.cuts import Cut

CLAIMS = "claims"


def spread(cuts: Sequence[Cut], folder: Path, world: World) -> Iterator[Cut]:
    """Return the shards that this process claims, in order; each process must call this once.

    Args:
        cuts: the shards to make, the same in all processes.
        folder: the artifact's folder, visible to all processes; claims are in a folder inside it.
        world: the number of this process, and how many there are.
    """
    if world.size == 1:
        return iter(cuts)
    claims = folder / CLAIMS
    if world.main:
        shutil.rmtree(claims, ignore_errors=True)
        claims.mkdir(parents=True)
    barrier()  # no process claims before the old claims are removed
    return _claimed(cuts, claims)


def forget_claims(folder: Path) -> None:
    """Remove the claims after all shards are made."""
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)


def of_all(advance: Advance, cuts: Sequence[Cut], made: Callable[[int], bool]) -> Advance:
    """Return a function that moves a bar by the examples that all processes have written.

    Args:
        advance: moves the bar.
        cuts: the shards to make.
        made: returns whether the shard with a number exists.
    """
    waiting = {number: stop - start for number, start, stop in cuts}

    def look(_: float) -> None:
        for number in [number for number in waiting if made(number)]:
            advance(waiting.pop(number))

    return look


def _claimed(cuts: Sequence[Cut], claims: Path) -> Iterator[Cut]:
    for cut in cuts:
        if _claim(claims / f"{cut[0]:05d}"):
            yield cut


def _claim(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True

"""Shards spread over processes: whoever is free takes the next, by making a file nobody else made.

So a process on a slower GPU, or with longer examples, takes fewer, and all end within a shard of
one another. A claim holds for one launch: the first process forgets the claims of the last one, so
that a process that died leaves its finished shards and loses nothing else.
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
    """Return the shards that are this process's, in their order; each process must call this once.

    Args:
        cuts: the shards to be made, the same for all processes.
        folder: the artifact's folder, which all processes see; claims go into a folder within.
        world: this process among its fellows.
    """
    if world.size == 1:
        return iter(cuts)
    claims = folder / CLAIMS
    if world.main:
        shutil.rmtree(claims, ignore_errors=True)
        claims.mkdir(parents=True)
    barrier()  # nobody claims before the old claims are gone
    return _claimed(cuts, claims)


def forget_claims(folder: Path) -> None:
    """Remove the claims, when all shards are made."""
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)


def of_all(advance: Advance, cuts: Sequence[Cut], made: Callable[[int], bool]) -> Advance:
    """Return what moves a bar by the examples that all processes have written.

    Args:
        advance: moves the bar.
        cuts: the shards to be made.
        made: whether the shard of a number is there.
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

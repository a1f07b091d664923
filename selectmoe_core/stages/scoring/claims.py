"""Shards among processes: a free process claims the next shard by creating a file for it.

A process on a slower GPU, or with longer examples, takes fewer shards, and all processes end at
about the same time. They may be processes of one launch, workers that come and go, or both, on any
number of hosts that share the folder. When no shard is left to claim, a process waits for those
that others make, and takes over what a process that died has left.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from selectmoe_core.errors import StageError, listing
from selectmoe_core.runtime.leases import ALIVE, BEAT, LEASE, Leases, Place
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.stages.scoring.cuts import Cut

TIME = "time-"
"""The beginning of the names of files that say how long a worker has worked."""
WORKED = "worker_seconds"
"""The fact that says how long all workers together have worked."""
OLD = 60.0
"""Seconds after which an unfinished file is a killed process's, and not one that is written."""


class Claims:
    """The shards that this process claims while the block runs.

    Args:
        place: where the claims of the artifact are, for all processes to see.
        joins: this process is a worker, whose time the run cannot measure.
        leaves_at: when it takes no further shard, in seconds since 1970.
        say: prints for whom this process waits.
        beat: seconds between two signs of life.
        lease: seconds after which a process on another host counts as gone.
    """

    def __init__(
        self,
        place: Place,
        *,
        joins: bool = False,
        leaves_at: float | None = None,
        say: Callable[[str], None] = lambda _: None,
        beat: float = BEAT,
        lease: float = LEASE,
    ) -> None:
        self._joins, self._leaves_at = joins, leaves_at
        self._say = say
        self._begun = time.monotonic()
        self._longest = 0.0
        self._leases = Leases(place, beat=beat, lease=lease, also=self._note_time)

    def __enter__(self) -> "Claims":
        self._leases.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        # The run may have finished the stage, and removed the claims.
        with suppress(OSError, StageError):
            self._note_time()
        self._leases.__exit__(*error)

    def spread(self, cuts: Sequence[Cut], made: Callable[[int], bool]) -> Iterator[Cut]:
        """Yield the shards that this process claims, in order, until all are made or claimed by it.

        Args:
            cuts: the shards to make, the same in all processes.
            made: returns whether the shard with a number exists.

        Raises:
            StageError: somebody has removed the folder of the stage.
        """
        others: list[Cut] = []
        try:
            # What a run that was stopped had begun is made in its turn, and not at the end.
            left = self._leases.abandoned(map(_name, cuts))
            for cut in cuts:
                if self._time_is_up():
                    return
                if self._has(_name(cut), left):
                    # Another process may have made it since this one looked for missing shards.
                    yield from self._timed(cut, made)
                else:
                    others.append(cut)
            yield from self._left_by_others(others, made)
        except FileNotFoundError:
            # The run has finished the stage; otherwise it was started again meanwhile.
            if not all(made(cut[0]) for cut in cuts):
                raise StageError(
                    "the folder of the stage was removed while its shards were made",
                    hint="was the stage started again with --fresh? Run this command again",
                ) from None

    def again(self, numbers: Iterable[int]) -> None:
        """Make shards free whose files were removed."""
        self._leases.forget([f"{number:05d}" for number in numbers])

    def _has(self, name: str, left: Collection[str]) -> bool:
        """Claim a shard; return whether this process has it now."""
        if name in left:
            return self._leases.take_over([name])[0] is not None
        return self._leases.claim(name)

    def _left_by_others(self, cuts: Sequence[Cut], made: Callable[[int], bool]) -> Iterator[Cut]:
        """Wait for the shards of others, and yield those whose process is gone."""
        waiting = {_name(cut): cut for cut in cuts}
        said = False
        while waiting := {name: cut for name, cut in waiting.items() if not made(cut[0])}:
            if self._time_is_up():
                return
            mine, holders = self._leases.take_over(waiting)
            if mine is not None:
                yield from self._timed(waiting.pop(mine), made)
                continue
            if not said:
                said, by = True, listing(holders, 4)
                self._say(f"waiting for {len(waiting)} shards that others make: {by}")
            time.sleep(self._leases.place.look)

    def _timed(self, cut: Cut, made: Callable[[int], bool]) -> Iterator[Cut]:
        if made(cut[0]):
            return
        begun = time.monotonic()
        yield cut
        self._longest = max(self._longest, time.monotonic() - begun)

    def _time_is_up(self) -> bool:
        """Whether another shard, as long as the longest so far, would end too late."""
        return self._leaves_at is not None and time.time() + self._longest > self._leaves_at

    def _note_time(self) -> None:
        if self._joins:
            worked = json.dumps({"seconds": round(time.monotonic() - self._begun, 1)})
            self._leases.place.write(TIME + self._leases.id.removeprefix(ALIVE), worked)


def _name(cut: Cut) -> str:
    return f"{cut[0]:05d}"


def forget_claims(place: Place, folder: Path) -> dict[str, float]:
    """Remove the claims after all shards are made, and what killed processes left half written.

    Args:
        place: where the claims are.
        folder: the artifact's folder.

    Returns:
        ``worker_seconds``, how long all workers together have worked, if there were any.
    """
    total = 0.0
    with suppress(FileNotFoundError):  # nothing was claimed
        for name in place.names():
            if name.startswith(TIME):
                with suppress(ValueError, TypeError, KeyError):
                    total += float(json.loads(place.read(name) or "")["seconds"])
    place.clear()
    for path in folder.glob("*/.part-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD:
                path.unlink()
    return {WORKED: total} if total else {}


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

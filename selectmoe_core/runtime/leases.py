"""Leases: which of several processes, on any number of hosts, works on what.

A claim is a file that only one process can create; it names its owner. The owner keeps a file of
its own fresh, its sign of life. A claim whose owner is gone can be taken by another process: it
creates the claim's next generation, which again only one process can do. No claim is ever removed
or changed while others may look at it, so nobody can take a claim that has just changed hands.

A process of the same machine is asked for directly. On another machine an owner counts as gone
when its sign of life is older than a lease, by the clock of the place that holds the files.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from selectmoe_core.errors import StageError

BEAT = 10.0
"""Seconds between two signs of life."""
LEASE = 90.0
"""Seconds after the last sign of life until an owner on another host counts as gone.

Longer than the minute for which NFS may show a host an old state of a folder.
"""
ALIVE = "alive-"
"""The beginning of the names of signs of life."""


class Place(Protocol):
    """Where leases are kept: a folder that all processes see, or an object store.

    Attributes:
        look: seconds between two looks of a process that waits.
    """

    look: float

    def open(self) -> None:
        """Prepare it."""
        ...

    def clear(self) -> None:
        """Remove all files."""
        ...

    def create(self, name: str, text: str) -> bool:
        """Create a file with a content, or return that there is one of this name already."""
        ...

    def write(self, name: str, text: str) -> float:
        """Write a file; return when, by the clock of the place, in seconds."""
        ...

    def written(self, name: str) -> float | None:
        """Return when a file was written, by the clock of the place; ``None`` if it is missing."""
        ...

    def read(self, name: str) -> str | None:
        """Return the content of a file; ``None`` if it is missing."""
        ...

    def names(self) -> set[str]:
        """Return the names of all files."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...


@dataclass(frozen=True)
class Owner:
    """A process that claims.

    Attributes:
        host: the name of its host, for messages.
        machine: identifies the running system and container, where that can be known.
        pid: its number there.
        began: when it was started, in the system's own units: numbers of processes come again.
    """

    host: str
    machine: str
    pid: int
    began: str

    @classmethod
    def this(cls) -> "Owner":
        """Return this process."""
        return cls(socket.gethostname(), machine(), os.getpid(), began(os.getpid()) or "")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def machine() -> str:
    """Return what identifies the running system and container; nothing where it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def began(pid: int) -> str | None:
    """Return when a process of this machine was started; ``None`` if it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field, the name, may hold spaces and brackets.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


class Leases:
    """Claims of this process in a place, kept alive by a thread while the block runs.

    Args:
        place: where they are.
        beat: seconds between two signs of life.
        lease: seconds after which an owner on another machine counts as gone.
        also: called at every sign of life.
        owner: who claims.
    """

    def __init__(
        self,
        place: Place,
        *,
        beat: float = BEAT,
        lease: float = LEASE,
        also: Callable[[], None] = lambda: None,
        owner: Owner | None = None,
    ) -> None:
        self.place = place
        self.owner = owner or Owner.this()
        self.id = f"{ALIVE}{self.owner.pid}-{uuid4().hex[:12]}"
        self._beat, self._lease, self._also = beat, lease, also
        self._owners: dict[str, Owner | None] = {}
        self._left = threading.Event()
        self._thread = threading.Thread(
            target=self._stay_alive, name="selectmoe-lease", daemon=True
        )

    def __enter__(self) -> "Leases":
        self.place.open()
        self._sign()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave: what this process has claimed and not finished is free at once."""
        self._left.set()
        self._thread.join()
        with contextlib.suppress(OSError, StageError):
            self.place.remove(self.id)

    def claim(self, name: str) -> bool:
        """Claim what nobody has claimed yet; return whether this process has it now."""
        return self.place.create(_file(name, 0), self.id)

    def abandoned(self, names: Iterable[str]) -> set[str]:
        """Return which names are claimed by an owner that is gone."""
        last = _generations(self.place.names())
        now = self._sign()
        claimed = (name for name in names if name in last)
        return {name for name in claimed if self._holder(_file(name, last[name]), now) is None}

    def take_over(self, names: Iterable[str]) -> tuple[str | None, list[str]]:
        """Claim the first thing that nobody claims, or whose owner is gone.

        Returns:
            The name that this process has claimed now; if there is none, who has claimed the names.
        """
        last = _generations(self.place.names())
        now = self._sign()
        holders = set()
        for name in names:
            number = last.get(name)
            holder = None if number is None else self._holder(_file(name, number), now)
            if holder is None and self.place.create(
                _file(name, 0 if number is None else number + 1), self.id
            ):
                return name, []
            holders.add(holder or "another process")
        return None, sorted(holders)

    def forget(self, names: Iterable[str]) -> None:
        """Remove the claims of what has to be made again; only while nobody else can claim it."""
        last = _generations(self.place.names())
        for name in names:
            for number in reversed(range(last.get(name, -1) + 1)):
                self.place.remove(_file(name, number))

    def _holder(self, claim: str, now: float) -> str | None:
        """Return who holds a claim; ``None`` if its owner is gone."""
        owner_id = self.place.read(claim)
        if owner_id == self.id:
            return str(self.owner)
        if not owner_id:
            # It is being written at this moment, on a file system where that takes two steps.
            written = self.place.written(claim)
            return "another process" if written and now - written < self._lease else None
        written = self.place.written(owner_id)
        owner = self._owner(owner_id)
        if written is None or owner is None:
            return None
        if owner.machine and owner.machine == self.owner.machine:
            return str(owner) if began(owner.pid) == owner.began else None
        return str(owner) if now - written < self._lease else None

    def _owner(self, name: str) -> Owner | None:
        if self._owners.get(name) is None:
            text = self.place.read(name)
            try:
                self._owners[name] = Owner(**json.loads(text)) if text else None
            except (ValueError, TypeError):
                return None
        return self._owners[name]

    def _sign(self) -> float:
        return self.place.write(self.id, json.dumps(asdict(self.owner)))

    def _stay_alive(self) -> None:
        while not self._left.wait(self._beat):
            # The place may be gone because the work is finished; it may also be out of reach for
            # a moment. If it stays so, others take over, which costs time and changes no result.
            with contextlib.suppress(OSError, StageError):
                self._sign()
                self._also()


def _file(name: str, generation: int) -> str:
    return f"{name}.{generation}"


def _generations(names: Iterable[str]) -> dict[str, int]:
    """Return the last generation of each claim."""
    last: dict[str, int] = {}
    for file in names:
        name, dot, number = file.rpartition(".")
        if dot and number.isdecimal():
            last[name] = max(last.get(name, 0), int(number))
    return last

"""Who uses what in a folder that runs share, so that no run removes what another one reads.

Each user has one file, locked while it lasts, that lists all it uses: so many things need no open
file each. The lock of a user that was killed is free, and its file counts no more.
"""

import fcntl
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

GATE = "gate"
"""Locked while somebody says what he uses, shared, or removes something, alone."""


@contextmanager
def using(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Use things, by their names, while the block runs; wait while some are being removed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid4().hex}.use"
    try:
        with path.open("w", encoding="utf-8") as own:
            with (folder / GATE).open("w") as gate:
                _locked(gate, fcntl.LOCK_SH)
                _locked(own, fcntl.LOCK_EX)
                own.write("".join(f"{name}\n" for name in names))
                own.flush()
            yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def unused(folder: Path, names: Collection[str]) -> Iterator[str | None]:
    """Let nobody begin to use things while the block runs; give the first that somebody uses."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / GATE).open("w") as gate:
        _locked(gate, fcntl.LOCK_EX)
        yield next((name for name in _used(folder) if name in names), None)


def _used(folder: Path) -> Iterator[str]:
    """Yield the names of all that is used, and remove the files of users that were killed."""
    for path in sorted(folder.glob("*.use")):
        with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
            if _locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB):
                path.unlink(missing_ok=True)
            else:
                yield from file.read().splitlines()


def _locked(file: IO[Any], how: int) -> bool:
    """Lock a file; return whether nobody else holds it."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing is promised there
        pass
    return True

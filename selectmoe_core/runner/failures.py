"""How a process of a stage came to its end, and which of several ends caused the others."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from selectmoe_core.errors import PluginError, RecipeError, SelectMoEError, StageError
from selectmoe_core.store import write_json

BUG = 70
"""Exit code of a failure nobody foresaw (``EX_SOFTWARE``); ``run`` turns it into 1."""
INTERRUPTED = 130
"""Exit code of a process that the user interrupted."""
EXPECTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ends a process whose fellow failed: no cause."""


@dataclass(frozen=True)
class Failure:
    """The end of a process.

    Attributes:
        code: its exit code; below zero, the number of the signal that ended it.
        rank: which of the stage's processes it was.
        what: what it said went wrong.
        hint: what it said can be done.
        traceback: of a failure that nobody foresaw.
        host: where it ran.
        at: when, in seconds since 1970.
    """

    code: int
    rank: int = 0
    what: str = ""
    hint: str = ""
    traceback: str = ""
    host: str = field(default_factory=lambda: os.uname().nodename)
    at: float = field(default_factory=time.time)

    def save(self, path: Path) -> None:
        """Write it for the process that waits."""
        write_json(path, asdict(self))

    @classmethod
    def of(cls, outcome: Path, code: int, rank: int = 0) -> "Failure":
        """Return what a process wrote into ``outcome``, or what its exit code alone says."""
        if outcome.is_file():
            return cls.load(outcome.read_text(encoding="utf-8"))
        return cls(code, rank)

    @classmethod
    def load(cls, text: str) -> "Failure":
        """Read what another process wrote."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    def end_run(self, key: str, stage: str, processes: int = 1) -> NoReturn:
        """Raise what the run fails with, after the traceback where there is one."""
        sys.stderr.write(self.traceback)
        raise self.error(key, stage, processes)

    def error(self, key: str, stage: str, processes: int = 1) -> SelectMoEError | KeyboardInterrupt:
        """Return what the run raises for it.

        Args:
            key: the node it was at.
            stage: the node's stage.
            processes: how many processes the stage had.
        """
        if self.code == INTERRUPTED:
            return KeyboardInterrupt()
        place = f" on {self.host}" if processes > 1 else ""
        which = f"process {self.rank + 1} of {processes}{place}" if processes > 1 else "its process"
        again = "run again to go on from where it was"
        if self.code < 0:
            name = signal.Signals(-self.code).name
            memory = " (out of memory?)" if name == "SIGKILL" else ""
            return StageError(
                f"{key}: {which} was ended by {name}{memory}",
                hint=f"{again}; a smaller batch needs less memory",
            )
        if not self.what:
            return StageError(
                f"{key}: {which} ended with code {self.code}", hint=f"see run.log ({stage})"
            )
        if self.code == BUG:
            told = f"{which}: {self.what}" if processes > 1 else self.what
            if self.hint:  # a plugin's, and the hint says whose
                return StageError(f"{key}: {told}", hint=self.hint)
            return StageError(
                f"{key}: {told} (a bug of selectmoe, a plugin or a library: the traceback is above "
                "and in run.log)",
                hint=f"{again}; please report it",
            )
        kinds = {error.exit_code: error for error in (RecipeError, PluginError)}
        return kinds.get(self.code, StageError)(f"{key}: {self.what}", hint=self.hint)


def outcome_path(spec_file: Path, rank: int | None = None) -> Path:
    """Return the file that says how a node's process ended; without a rank, the whole stage."""
    return spec_file.with_suffix(".error" if rank is None else f".{rank}.error")


def cause(failures: Iterable[Failure]) -> Failure:
    """Return which of several ends caused the others.

    Where a process was killed from outside, its fellows fail for want of it, often before anyone
    has noticed; otherwise an error with a reason comes before one that nobody foresaw, which may be
    a lost connection, and the first comes before what follows.
    """
    return min(failures, key=lambda failure: (_order(failure.code), failure.at, failure.rank))


def _order(code: int) -> int:
    if code == INTERRUPTED:
        return 0
    if code == -signal.SIGABRT:
        return 4  # NCCL ends a process so when it lost another
    if code < 0:
        return 5 if -code in EXPECTED else 1
    if code == BUG:
        return 4
    return 2 if code in {e.exit_code for e in (SelectMoEError, RecipeError, PluginError)} else 3

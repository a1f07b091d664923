"""How a process of a stage ended, and which of several failures caused the others."""

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
from selectmoe_core.runtime.processes import INTERRUPTED
from selectmoe_core.store import write_json

BUG = 70
"""Exit code of an unexpected failure (``EX_SOFTWARE``); ``run`` turns it into 1."""
EXPECTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end a process because another one failed: never the cause."""


@dataclass(frozen=True)
class Failure:
    """How a process ended.

    Attributes:
        code: its exit code; below zero, the number of the signal that ended it.
        rank: which of the stage's processes it was.
        what: its error message.
        hint: its hint.
        traceback: of an unexpected failure.
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
        """Write the failure for the process that waits."""
        write_json(path, asdict(self))

    @classmethod
    def of(cls, outcome: Path, code: int, rank: int = 0) -> "Failure":
        """Return what a process wrote into ``outcome``, or what its exit code alone says."""
        if outcome.is_file():
            return cls.load(outcome.read_text(encoding="utf-8"))
        return cls(code, rank)

    @classmethod
    def load(cls, text: str) -> "Failure":
        """Read a failure that another process wrote."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return the failure as JSON."""
        return json.dumps(asdict(self))

    def end_run(self, key: str, stage: str, processes: int = 1) -> NoReturn:
        """Raise the error of the run, after printing the traceback if there is one."""
        sys.stderr.write(self.traceback)
        raise self.error(key, stage, processes)

    def error(self, key: str, stage: str, processes: int = 1) -> SelectMoEError | KeyboardInterrupt:
        """Return the error that the run raises.

        Args:
            key: the node that was executed.
            stage: the node's stage.
            processes: how many processes the stage had.
        """
        if self.code == INTERRUPTED:
            return KeyboardInterrupt()
        place = f" on {self.host}" if processes > 1 else ""
        which = f"process {self.rank + 1} of {processes}{place}" if processes > 1 else "its process"
        again = "run again to continue"
        if self.code < 0:
            name = signal.Signals(-self.code).name
            memory = " (out of memory?)" if name == "SIGKILL" else ""
            return StageError(
                f"{key}: {which} was ended by {name}{memory}",
                hint=f"{again}; smaller batches need less memory",
            )
        if not self.what:
            return StageError(
                f"{key}: {which} ended with code {self.code}", hint=f"see run.log ({stage})"
            )
        if self.code == BUG:
            what = f"{which}: {self.what}" if processes > 1 else self.what
            if self.hint:  # of a plugin, which the hint names
                return StageError(f"{key}: {what}", hint=self.hint)
            return StageError(
                f"{key}: {what} (a bug of selectmoe, a plugin or a library: the traceback is above "
                "and in run.log)",
                hint=f"{again}; please report it",
            )
        kinds = {error.exit_code: error for error in (RecipeError, PluginError)}
        named = self.what if self.what.startswith(f"{key} ") else f"{key}: {self.what}"
        return kinds.get(self.code, StageError)(named, hint=self.hint)


def outcome_path(spec_file: Path, rank: int | None = None) -> Path:
    """Return the file that says how a process ended; without a rank, how the stage ended."""
    return spec_file.with_suffix(".error" if rank is None else f".{rank}.error")


def cause(failures: Iterable[Failure]) -> Failure:
    """Return which of several failures caused the others.

    If a process was killed from outside, the others fail because it is missing, often before its
    end is noticed. Otherwise an error with a message counts before an unexpected one, which may be
    a lost connection, and the earliest counts before later ones.
    """
    return min(failures, key=lambda failure: (_order(failure.code), failure.at, failure.rank))


def _order(code: int) -> int:
    if code == INTERRUPTED:
        return 0
    if code == -signal.SIGABRT:
        return 4  # NCCL ends a process this way when it has lost another
    if code < 0:
        return 5 if -code in EXPECTED else 1
    if code == BUG:
        return 4
    return 2 if code in {e.exit_code for e in (SelectMoEError, RecipeError, PluginError)} else 3

"""What an executor is: it runs the processes of stages, on this host or on others."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

MAPPED_STAGES = ("embed", "score")
"""Stages that work shard by shard: their processes need not meet, and may come and go."""


@dataclass(frozen=True)
class Site:
    """What a run asks of its executor.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, as the command line says.
        threads: torch threads of a process on the CPU; 0 leaves it to the executor.
        say: prints a line of progress.
    """

    device: str = "auto"
    threads: int = 0
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Place:
    """Where an executor runs processes, if that is not this host.

    Attributes:
        device: ``cpu`` or ``cuda``.
        processes: how many work together on a stage that is no map over shards.
        threads: torch threads of each process on the CPU.
        text: the place in words, for the log.
    """

    device: str
    processes: int
    threads: int
    text: str


Here = Callable[[], None]
Drive = Callable[[str, Mapping[str, Any], bool], None]


@dataclass(frozen=True)
class NodeRun:
    """A node of the plan that an executor executes.

    Attributes:
        key: the node's name.
        stage: its stage.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        processes: how many processes may execute it together.
        threads: torch threads of each process on the CPU.
        program: the module that each process runs, and its arguments: the node's file, which all
            hosts see in the outputs folder.
        here: executes it in processes of this host, through accelerate where there are several.
        drive: ``drive(maker, options, skip_failed)`` executes a node of ``MAPPED_STAGES`` in one
            process of this host, which passes its shards to a maker: a function, named as
            ``package.module:name`` and called with a ``ShardWork`` and the options, that returns a
            context manager of a ``ShardMaker`` (``selectmoe_core.execution``). With
            ``skip_failed``, examples of shards that cannot be made are skipped; otherwise they end
            the stage after all others are made.
        ended: takes the exit codes of the processes by rank; raises the error of the one that
            failed first, if one did.
        look: shows what the processes have reported; call it every moment while they work.
    """

    key: str
    stage: str
    device: str
    processes: int
    threads: int
    program: tuple[str, ...]
    here: Here
    drive: Drive
    ended: Callable[[Mapping[int, int]], None]
    look: Callable[[], None] = field(default=lambda: None)


class OpenExecutor(Protocol):
    """Executes one node after another, with what was connected once."""

    def place(self) -> Place | None:
        """Return where processes run; ``None``: on this host, as the command line says."""
        ...

    def map(self, run: NodeRun) -> None:
        """Execute a node whose shards are independent; return when all are made."""
        ...

    def gang(self, run: NodeRun) -> None:
        """Execute a node in processes that start together; return when all have ended."""
        ...


class ThisHost:
    """Processes run on this host: what a run without a table ``[executor]`` does."""

    def place(self) -> Place | None:
        """Return nothing: processes run here, as the command line says."""
        return None

    def map(self, run: NodeRun) -> None:
        """Let the processes share the shards."""
        run.here()

    def gang(self, run: NodeRun) -> None:
        """Start the processes together."""
        run.here()


class Executor(Protocol):
    """Runs the processes of stages. It changes no result and is in no digest."""

    def open(self, site: Site) -> AbstractContextManager[OpenExecutor]:
        """Connect to where processes run; called once, before the first stage."""
        ...

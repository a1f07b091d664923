"""Nodes that are executed at the same time, each in a process of its own."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selectmoe_core.errors import RecipeError
from selectmoe_core.runner.launch import (
    LOOK,
    Child,
    Launch,
    Process,
    interrupted,
    start,
)
from selectmoe_core.runner.watch import Watch
from selectmoe_core.stages.node_spec import NodeSpec


@dataclass(frozen=True)
class Member:
    """A node at work.

    Attributes:
        child: its process.
        watch: follows what it reports.
        gpu: the only GPU that it sees, where it uses one.
    """

    child: Child
    watch: Watch
    gpu: str | None


class Crew:
    """Up to a number of nodes at the same time, spread over the GPUs of this machine.

    Args:
        size: how many.
        gpus: the GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; none on the CPU.
        folder: the run's folder.
        launch: how their processes are started.
        watch: makes what follows a node; it gets the file that the node prints to.
    """

    def __init__(
        self,
        size: int,
        gpus: Sequence[str],
        folder: Path,
        launch: Launch,
        watch: Callable[[NodeSpec, Path], Watch],
    ) -> None:
        self.size = size
        self._gpus = gpus
        self._folder = folder
        self._launch = launch
        self._watch = watch
        self._members: dict[str, Member] = {}

    @property
    def full(self) -> bool:
        """Whether no further node can be started now."""
        return len(self._members) >= self.size

    @property
    def nodes(self) -> list[str]:
        """The keys of the nodes at work."""
        return list(self._members)

    def start(self, spec: NodeSpec) -> None:
        """Start a node; it gets the GPU that fewest others use."""
        gpu = self._free_gpu() if spec.device == "cuda" else None
        printed = self._folder / "work" / f"{spec.key.replace(':', '-')}.printed"
        child = start(spec, self._folder, self._launch, gpu, printed)
        self._members[spec.key] = Member(child, self._watch(spec, printed), gpu)

    def wait(self) -> Iterator[Child]:
        """Wait a moment, and yield the nodes that have ended; ``check`` says how."""
        time.sleep(LOOK)
        for key, member in list(self._members.items()):
            if not member.child.ended:
                member.watch.look()
                continue
            del self._members[key]
            member.watch.end()
            yield member.child

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """End all nodes if the block is interrupted."""
        with interrupted(_processes(self._members)):
            yield

    def _free_gpu(self) -> str | None:
        used = [member.gpu for member in self._members.values()]
        return min(self._gpus, key=used.count, default=None)


def _processes(members: dict[str, Member]) -> Iterator[Process]:
    """Yield the processes of those that are there when they are asked for."""
    for member in list(members.values()):
        yield member.child.process


def gpus_to_spread(device: str, count: int) -> list[str]:
    """Return the GPUs of this machine, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if device != "cuda":  # the CPU, or one GPU that the user chose
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def check_parallel(parallel: int, launch: Launch) -> Launch:
    """Return how processes are launched where several stages run at once: one for each stage.

    Raises:
        RecipeError: several processes for each stage were asked for too.
    """
    if parallel == 1:
        return launch
    if launch.processes > 1 or launch.team is not None or launch.configs:
        raise RecipeError(
            "--parallel executes stages of one process each: it cannot be combined with several "
            "processes for one stage",
            hint="leave out --parallel, or --num-processes, --accelerate-config and launchers",
        )
    return Launch(1)

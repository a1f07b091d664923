"""A gang: processes that start together and connect, each the child of an actor.

Each actor runs the same program as on one host, in a process of its own, with torchrun's variables.
Ray Train would start the same processes; it would bring a storage path, a results format and
further packages that nothing here uses.
"""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from selectmoe_core import NodeRun, StageError
from selectmoe_core.execution import bound

LOOK = 0.2
"""Seconds between two looks at a process."""
GRACE = 10.0
"""Seconds that a process has to end."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Seat:
    """Where the process of a rank runs.

    Attributes:
        node: the id of its node.
        address: its host.
        port: a port that is free there.
        gpus: the GPUs that it may use, as ``CUDA_VISIBLE_DEVICES`` names them.
    """

    node: str
    address: str
    port: int
    gpus: tuple[str, ...]


class GangActor:
    """Starts one process of a gang and waits for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def seat(self) -> Seat:
        """Return where this actor is."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = int(free.getsockname()[1])
        context = ray.get_runtime_context()
        gpus = tuple(map(str, ray.get_gpu_ids()))
        return Seat(str(context.get_node_id()), ray.util.get_node_ip_address(), port, gpus)

    def start(self, program: Sequence[str], variables: Mapping[str, str]) -> None:
        """Start the process; it ends with this actor."""
        environment = {**os.environ, **variables}
        command = [sys.executable, *bound(program[0], *program[1:])]
        self._process = subprocess.Popen(command, env=environment)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code of the process, or ``None`` if it still runs after a while."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=seconds)
        return None

    def stop(self) -> None:
        """End the process if it still runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_gang(run: NodeRun, gpus: float, cpus: float, start_seconds: float) -> None:
    """Execute a node in processes that start together; return when all have ended.

    Args:
        run: the node.
        gpus: GPUs of each process.
        cpus: cores of each process.
        start_seconds: how long the cluster may take to find room for all.

    Raises:
        StageError: a process failed, or its node was lost; the others have been ended.
    """
    # A process of several needs GPUs of its own.
    gpus = max(1.0, float(int(gpus))) if gpus and run.processes > 1 else gpus
    group = _group(run, gpus, cpus, start_seconds)
    actors: list[Any] = []
    try:
        kind = ray.remote(GangActor)
        for place in range(run.processes):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)
            options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": strategy}
            actors.append(kind.options(**options, max_restarts=0).remote())
        run.ended(_execute(run, actors))
    except RayActorError as error:
        raise StageError(
            f"{run.key}: a node of the cluster was lost: {str(error).strip().splitlines()[0]}",
            hint="run again to continue from the last checkpoint",
        ) from error
    finally:
        _end(actors)
        remove_placement_group(group)


def _group(run: NodeRun, gpus: float, cpus: float, start_seconds: float) -> PlacementGroup:
    """Reserve room for all processes at once, on as few nodes as possible."""
    bundle = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    group = placement_group([bundle] * run.processes, strategy="PACK")
    last = time.monotonic() + start_seconds
    while not group.wait(timeout_seconds=LOOK):
        run.look()
        if time.monotonic() > last:
            remove_placement_group(group)
            raise StageError(
                f"{run.key}: the cluster has had no room for {run.processes} processes of "
                f"{cpus:g} cores and {gpus:g} GPUs in {start_seconds:g} s",
                hint="`ray status` shows what it has and what it waits for",
            )
    return group


def _execute(run: NodeRun, actors: Sequence[Any]) -> dict[int, int]:
    """Start the processes and return their exit codes by rank, once one failed or all ended."""
    seats: list[Seat] = ray.get([actor.seat.remote() for actor in actors])
    # Neighbours on a node have ranks that follow one another; the first node holds rank 0.
    nodes = [seat.node for seat in seats]
    order = sorted(range(len(seats)), key=lambda place: (nodes.index(nodes[place]), place))
    ranked = [(actors[place], seats[place]) for place in order]
    variables = _variables([seat for _, seat in ranked])
    starts = [
        actor.start.remote(list(run.program), own)
        for (actor, _), own in zip(ranked, variables, strict=True)
    ]
    ray.get(starts)
    waiting = {actor.wait.remote(LOOK * 5): rank for rank, (actor, _) in enumerate(ranked)}
    codes: dict[int, int] = {}
    while waiting and not any(codes.values()):
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK)
        run.look()
        for ref in ready:
            rank = waiting.pop(ref)
            code = ray.get(ref)
            if code is None:
                waiting[ranked[rank][0].wait.remote(LOOK * 5)] = rank
            else:
                codes[rank] = code
    return codes


def _variables(seats: Sequence[Seat]) -> list[dict[str, str]]:
    """Return torchrun's variables for the process of each rank.

    Processes of one node see all of its GPUs of the gang, so that they may exchange data directly.
    """
    if len(seats) == 1:
        return [{}]
    first, there = seats[0], Counter(seat.node for seat in seats)
    seen: Counter[str] = Counter()
    found = []
    for rank, seat in enumerate(seats):
        together = [gpu for other in seats if other.node == seat.node for gpu in other.gpus]
        found.append(
            {
                "RANK": str(rank),
                "WORLD_SIZE": str(len(seats)),
                "LOCAL_RANK": str(seen[seat.node]),
                "LOCAL_WORLD_SIZE": str(there[seat.node]),
                "MASTER_ADDR": first.address,
                "MASTER_PORT": str(first.port),
                **({VISIBLE: ",".join(together)} if together else {}),
            }
        )
        seen[seat.node] += 1
    return found


def _end(actors: Sequence[Any]) -> None:
    stops = [actor.stop.remote() for actor in actors]
    with suppress(RayError, GetTimeoutError):
        ray.wait(stops, num_returns=len(stops), timeout=2 * GRACE) if stops else None
    for actor in actors:
        with suppress(RayError, ValueError):
            ray.kill(actor)

"""The processes that another launcher started: accelerate, torchrun or Slurm's srun.

Every one of them runs ``selectmoe run``. The first plans, executes the stages of one process, and
reports. For a stage that several processes share it announces the node, and each process starts a
child of its own; the children meet at a port that is used by this stage alone. The processes tell
one another what they know through a store of torch's at the launcher's address.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from selectmoe_core.errors import StageError
from selectmoe_core.runner.failures import INTERRUPTED, Failure, cause, outcome_path
from selectmoe_core.runtime.distributed import PATIENCE, World, current_world
from selectmoe_core.runtime.processes import bound
from selectmoe_core.stages.node_spec import WORKER

OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = ("GROUP_", "ROLE_", "TORCHELASTIC_")
"""How the names of other variables begin that a launcher sets for its own processes."""
MEETING = timedelta(minutes=10)
"""How long the processes of a launch may take to start."""
LOOK = 0.1
"""Seconds between two looks at a child and at the store."""
GRACE = 20.0
"""Seconds that all children have to end in once one has failed."""
SHARED = 60.0
"""Seconds that a file may take to show on another host."""


@dataclass
class Team:
    """This process among those that were launched.

    Attributes:
        world: which of them it is.
        address: the host of the first.
        store: what all of them read and write.
        sharing: how many of them share the cores that this one sees.
        number: nodes announced so far.
    """

    world: World
    address: str
    store: Any
    sharing: int = 1
    number: int = field(default=0)

    def execute(self, spec_file: Path, key: str, stage: str) -> None:
        """Let every process execute a node; for the first process.

        Raises:
            StageError: one of them failed; all have ended.
            KeyboardInterrupt: the user interrupted one of them.
        """
        port = _free_port()
        self._announce({"node": str(spec_file), "port": port})
        self._execute(spec_file, port)
        number, size = self.number - 1, self.world.size
        over = [f"over/{number}/{rank}" for rank in range(size)]
        last = None
        while not self.store.check(over):
            if last is None and self._failed(number):
                last = time.monotonic() + GRACE
            if last is not None and time.monotonic() > last:
                break
            time.sleep(LOOK)
        if self._failed(number):
            there = [name for name in over if self.store.check([name])]
            told = [text for name in there if (text := self.store.get(name).decode())]
            cause(map(Failure.load, told)).end_run(key, stage, size)

    def end(self) -> None:
        """Let the others go; for the first process."""
        self._announce({})
        last = time.monotonic() + GRACE
        left = [f"left/{rank}" for rank in range(1, self.world.size)]
        # They read the store, which may end with this process.
        while not self.store.check(left) and time.monotonic() < last:
            time.sleep(LOOK)

    def follow(self) -> None:
        """Execute what the first process announces, until there is no more.

        The first process reports what goes wrong: here nothing is printed.

        Raises:
            StageError: the first process has gone.
        """
        try:
            try:
                while announced := self._next():
                    self._execute(Path(announced["node"]), int(announced["port"]))
            finally:  # where a signal ends this process, the first need not wait for it either
                self.store.set(f"left/{self.world.rank}", "")
        except RuntimeError as error:  # what torch raises where the store is gone
            raise StageError(
                f"process {self.world.rank + 1} of {self.world.size} lost the first: {error}",
                hint="see what the first process says; run again to go on from where it was",
            ) from error

    def _announce(self, node: Mapping[str, object]) -> None:
        self.store.set(f"node/{self.number}", json.dumps(node))
        self.number += 1

    def _next(self) -> dict[str, Any]:
        key = f"node/{self.number}"
        while not self.store.check([key]):
            time.sleep(LOOK)
        self.number += 1
        announced: dict[str, Any] = json.loads(self.store.get(key))
        return announced

    def _execute(self, spec_file: Path, port: int) -> None:
        """Execute a node in a child; tell the others how it ended."""
        number = self.number - 1
        over = f"over/{number}/{self.world.rank}"
        failure = _unshared(spec_file, self.world.rank)
        try:
            failure = failure or self._child(spec_file, port, number)
        except KeyboardInterrupt:
            self._tell(number, over, Failure(INTERRUPTED, self.world.rank))
            raise
        self._tell(number, over, failure)

    def _tell(self, number: int, over: str, failure: Failure | None) -> None:
        if failure is not None:
            self.store.set(f"failed/{number}", "")
        self.store.set(over, failure.text() if failure else "")

    def _failed(self, number: int) -> bool:
        return bool(self.store.check([f"failed/{number}"]))

    def _child(self, spec_file: Path, port: int, number: int) -> Failure | None:
        """Return how this process's child failed; nothing where it ended well, or was ended."""
        outcome = outcome_path(spec_file, self.world.rank)
        outcome.unlink(missing_ok=True)
        child = subprocess.Popen(
            [sys.executable, *bound(WORKER, str(spec_file))], env=self._environment(port)
        )
        try:
            while child.poll() is None:
                if self._failed(number):
                    return None
                time.sleep(LOOK)
        finally:
            _stop(child)
        if not child.returncode:
            return None
        return Failure.of(outcome, child.returncode, self.world.rank)

    def _environment(self, port: int) -> dict[str, str]:
        world = self.world
        return os.environ | {
            "RANK": str(world.rank),
            "WORLD_SIZE": str(world.size),
            "LOCAL_RANK": str(world.local_rank),
            "LOCAL_WORLD_SIZE": str(self.sharing),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(port),
        }


def join_team() -> Team | None:
    """Return the processes that were launched with this one, or ``None`` where it is alone.

    From then on this process counts as one alone: the launcher's variables leave its environment,
    since what it does itself it does by itself, and only its children are many.

    Raises:
        StageError: the processes do not find one another.
    """
    variables = dict(os.environ)
    if "WORLD_SIZE" not in variables:
        variables |= _of_slurm(variables)
    world = _taken_out(variables)
    if world.size == 1:
        return None
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
    # torchrun and accelerate have a store running there; else the first process has to.
    agent = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            address,
            port,
            is_master=world.main and not agent,
            timeout=MEETING,
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise StageError(
            f"process {world.rank + 1} of {world.size} cannot reach the first at "
            f"{address}:{port}: {error}",
            hint="set MASTER_ADDR and MASTER_PORT to a place that all hosts can reach",
        ) from error
    store.set_timeout(PATIENCE)
    attempt = variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    sharing = int(variables.get("LOCAL_WORLD_SIZE", "1"))
    return Team(world, address, PrefixStore(f"selectmoe/{attempt}", store), sharing)


def _taken_out(variables: Mapping[str, str]) -> World:
    before = dict(os.environ)
    os.environ.update({name: variables[name] for name in OURS if name in variables})
    world = current_world()
    for name in before.keys() | set(OURS):
        if name in OURS or name.startswith(LAUNCHERS):
            os.environ.pop(name, None)
    return world


def _of_slurm(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that srun started, from those that Slurm sets.

    A batch script by itself is no step: ``SLURM_STEP_NUM_TASKS`` is srun's alone.
    """
    size = int(variables.get("SLURM_STEP_NUM_TASKS", "1"))
    if size == 1:
        return {}
    return {
        "RANK": variables["SLURM_PROCID"],
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": variables["SLURM_LOCALID"],
        "MASTER_ADDR": variables.get("MASTER_ADDR") or _first_host(variables),
        "MASTER_PORT": variables.get("MASTER_PORT") or _port_of_job(variables),
    }


def _first_host(variables: Mapping[str, str]) -> str:
    hosts = variables["SLURM_STEP_NODELIST"]
    if not set("[,") & set(hosts):
        return hosts
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["scontrol", "show", "hostnames", hosts]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()[0]
    raise StageError(
        f"scontrol cannot say which the first host of {hosts} is",
        hint="set MASTER_ADDR to the name of the first host",
    )


def _port_of_job(variables: Mapping[str, str]) -> str:
    """Return a port that other steps on the same host will hardly have."""
    job, step = int(variables["SLURM_JOB_ID"]), int(variables.get("SLURM_STEP_ID", "0"))
    return str(15000 + (job * 31 + step) % 15000)


def _unshared(spec_file: Path, rank: int) -> Failure | None:
    """Return a failure where the node's file does not show on this host."""
    last = time.monotonic() + SHARED
    while not spec_file.is_file():
        if time.monotonic() > last:
            return Failure(
                StageError.exit_code,
                rank,
                f"{spec_file} is not there on {socket.gethostname()}: all hosts must see one "
                "outputs folder",
                "name a folder that they share with --outputs",
            )
        time.sleep(LOOK)
    return None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a child that is still there; it may need a while to let go of a GPU."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(timeout=GRACE / 2)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()

"""The processes that another launcher started: accelerate, torchrun or Slurm's srun.

Every one of them runs ``selectmoe run``. The first plans, executes the stages of one process, and
reports. For a stage that several processes share it announces the node, and each process starts a
child of its own; the children connect at a port that only this stage uses. The processes exchange
messages through a torch store at the launcher's address.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from selectmoe_core.errors import StageError
from selectmoe_core.runner.failures import Failure, cause, outcome_path
from selectmoe_core.runtime.distributed import PATIENCE, World, current_world
from selectmoe_core.runtime.processes import INTERRUPTED, bound, interrupts_held
from selectmoe_core.stages.node_spec import WORKER

OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = ("GROUP_", "ROLE_", "TORCHELASTIC_")
"""Prefixes of other variables that a launcher sets for its own processes."""
MEETING = timedelta(minutes=10)
"""How long the processes of a launch may take to start."""
LOOK = 0.1
"""Seconds between two checks of a child and of the store."""
GRACE = 20.0
"""Seconds that all children have to end after one has failed."""
SHARED = 60.0
"""Seconds until a file is visible on another host, at most."""


@dataclass
class Team:
    """This process and the others that were launched with it.

    Attributes:
        world: the number of this process and how many there are.
        address: the host of the first process.
        store: shared by all of them.
        sharing: how many processes share the cores that this one sees.
        number: nodes announced so far.
    """

    world: World
    address: str
    store: Any
    sharing: int = 1
    number: int = field(default=0)

    def execute(self, spec_file: Path, key: str, stage: str, look: Callable[[], None]) -> None:
        """Let every process execute a node; called by the first process.

        Args:
            spec_file: the node's file.
            key: its name.
            stage: its stage.
            look: called every moment while it is executed.

        Raises:
            StageError: one of them failed, and all have ended.
            KeyboardInterrupt: the user interrupted one of them.
        """
        port = _free_port()
        self._announce({"node": str(spec_file), "port": port})
        self._execute(spec_file, port, look)
        number, size = self.number - 1, self.world.size
        over = [f"over/{number}/{rank}" for rank in range(size)]
        last = None
        while not self.store.check(over):
            if last is None and self._failed(number):
                last = time.monotonic() + GRACE
            if last is not None and time.monotonic() > last:
                break
            time.sleep(LOOK)
            look()
        if self._failed(number):
            there = [name for name in over if self.store.check([name])]
            texts = [text for name in there if (text := self.store.get(name).decode())]
            cause(map(Failure.load, texts)).end_run(key, stage, size)

    def end(self) -> None:
        """Release the other processes; called by the first process."""
        self._announce({})
        last = time.monotonic() + GRACE
        left = [f"left/{rank}" for rank in range(1, self.world.size)]
        # They still read the store, which may end with this process.
        while not self.store.check(left) and time.monotonic() < last:
            time.sleep(LOOK)

    def follow(self) -> None:
        """Execute the nodes that the first process announces, until there are no more.

        Nothing is printed here: the first process reports errors.

        Raises:
            StageError: the first process has ended.
        """
        try:
            try:
                while announced := self._next():
                    self._execute(Path(announced["node"]), int(announced["port"]))
            finally:  # the first process must not wait for this one, even if a signal ends it
                self.store.set(f"left/{self.world.rank}", "")
        except RuntimeError as error:  # torch raises this if the store is gone
            raise StageError(
                f"process {self.world.rank + 1} of {self.world.size} lost contact with the first: "
                f"{error}",
                hint="see the message of the first process; run again to continue",
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

    def _execute(self, spec_file: Path, port: int, look: Callable[[], None] = lambda: None) -> None:
        """Execute a node in a child process and report to the others how it ended."""
        number = self.number - 1
        over = f"over/{number}/{self.world.rank}"
        failure = _unshared(spec_file, self.world.rank)
        try:
            failure = failure or self._child(spec_file, port, number, look)
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

    def _child(
        self, spec_file: Path, port: int, number: int, look: Callable[[], None]
    ) -> Failure | None:
        """Return how this process's child failed, or nothing if it succeeded or was ended by us."""
        outcome = outcome_path(spec_file, self.world.rank)
        outcome.unlink(missing_ok=True)
        with interrupts_held():
            child = subprocess.Popen(
                [sys.executable, *bound(WORKER, str(spec_file))], env=self._environment(port)
            )
        try:
            while child.poll() is None:
                if self._failed(number):
                    return None
                time.sleep(LOOK)
                look()
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
    """Return the processes that were launched with this one, or ``None`` if it is alone.

    Afterwards this process counts as a single one: the launcher's variables are removed from its
    environment, because only its children work together with others.

    Raises:
        StageError: the processes cannot connect.
    """
    variables = dict(os.environ)
    if "WORLD_SIZE" not in variables:
        variables |= _of_slurm(variables)
    world = _taken_out(variables)
    if world.size == 1:
        return None
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
    # torchrun and accelerate run a store there; otherwise the first process has to.
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
            f"process {world.rank + 1} of {world.size} cannot reach the first process at "
            f"{address}:{port}: {error}",
            hint="set MASTER_ADDR and MASTER_PORT to an address that all hosts can reach",
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
    """Return the launch variables of a process that srun started, from those that Slurm sets.

    A batch script alone is not a step: only srun sets ``SLURM_STEP_NUM_TASKS``.
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
        f"scontrol cannot name the first host of {hosts}",
        hint="set MASTER_ADDR to the name of the first host",
    )


def _port_of_job(variables: Mapping[str, str]) -> str:
    """Return a port that other steps on the same host are unlikely to use."""
    job, step = int(variables["SLURM_JOB_ID"]), int(variables.get("SLURM_STEP_ID", "0"))
    return str(15000 + (job * 31 + step) % 15000)


def _unshared(spec_file: Path, rank: int) -> Failure | None:
    """Return a failure if the node's file is not visible on this host."""
    last = time.monotonic() + SHARED
    while not spec_file.is_file():
        if time.monotonic() > last:
            return Failure(
                StageError.exit_code,
                rank,
                f"{spec_file} does not exist on {socket.gethostname()}: all hosts must share one "
                "outputs folder",
                "with --outputs, name a folder that all hosts share",
            )
        time.sleep(LOOK)
    return None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs; it may need a while to release a GPU."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(timeout=GRACE / 2)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()

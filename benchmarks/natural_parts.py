"""Parts of a long benchmark: each is done once, within a time, by one of several processes."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOREVER = 1e9
"""Minutes that stand for no limit."""
CLAIMS = "claims"
"""A folder with a folder for each part that a process is doing."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of the part.
        key: names its result: what decides it.
        make: does it; it may take long.
        seconds: how long it takes on an H100, about.
        needs: signals that other parts make, without which it cannot begin.
    """

    name: str
    key: str
    make: Callable[[], None]
    seconds: float
    needs: tuple[str, ...] = ()


class Clock:
    """What is left of the time.

    Args:
        minutes: how long parts may take together.
    """

    def __init__(self, minutes: float) -> None:
        self.begun = time.monotonic()
        self.minutes = minutes

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return 60 * self.minutes - (time.monotonic() - self.begun)

    @property
    def shown(self) -> str:
        """What is left in words, if there is a limit."""
        return f", {self.left / 60:.1f} min of time" if self.minutes < FOREVER else ""

    def fits(self, part: Part) -> bool:
        """Return whether a part can begin: it should end in time."""
        return part.seconds <= self.left


def claim(out: Path, key: str) -> bool:
    """Take a part for this process; return whether no other has it."""
    try:
        (out / CLAIMS / key).mkdir(parents=True)
    except FileExistsError:
        return False
    return True


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep a second command out of a folder, and forget the claims of a command that was killed."""
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            shutil.rmtree(out / CLAIMS, ignore_errors=True)
            yield
    except Timeout:
        raise SystemExit(f"{out}: another command works in this folder") from None


def devices(count: int | None) -> list[str]:
    """Return the devices that processes may use: those that are visible, or ``count`` of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        names = [str(number) for number in range(torch.cuda.device_count())]
    else:
        names = [name for name in visible.split(",") if name]
    if count is None:
        return names or [""]
    if len(names) >= count:
        return names[:count]
    if names:
        raise SystemExit(f"--gpus {count}: only {len(names)} are visible")
    return [""] * count  # processes on the CPU


def spread(program: str, arguments: Sequence[str], clock: Clock, names: Sequence[str]) -> bool:
    """Run a program once on each device until the time is over; return whether none failed.

    Args:
        program: the path of the program.
        arguments: of each process, which also gets ``--child NUMBER`` and ``--minutes``.
        clock: the time.
        names: the devices.
    """
    processes = []
    for number, name in enumerate(names):
        given = [*arguments, "--child", str(number), "--minutes", f"{clock.left / 60:.2f}"]
        environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": name} if name else {})}
        command = [sys.executable, program, *given]
        processes.append(subprocess.Popen(command, env=environment))
    try:
        codes = [process.wait() for process in processes]
        return not any(codes)
    finally:
        for process in processes:
            process.kill()

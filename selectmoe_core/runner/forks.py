"""Processes of stages that begin at once: copies of one that has imported the libraries already.

The libraries of a stage (torch, transformers, peft, the harness) take 5 to 10 seconds of processor
time to import, and a comparison has dozens of stages of a few seconds. So one process imports them
once, and forks a copy of itself for each stage. A copy is as separate from the others as a process
that was started anew: it has its own memory, and begins with the state after the imports.

Only for stages on the CPU: CUDA cannot be used in a copy if the original has looked for GPUs.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from selectmoe_core.errors import StageError
from selectmoe_core.runtime.processes import bound, interrupts_held

SERVER = "selectmoe_core.runner.fork_server"
LOOK = 0.05
"""Seconds between two looks at whether a process has ended."""
AVAILABLE = sys.platform == "linux"
"""Elsewhere a fork of these libraries is not safe (macOS), or there is none (Windows)."""


class Forked:
    """The process of a stage; has what ``subprocess.Popen`` has and a run needs.

    Attributes:
        pid: its id.
        returncode: as ``Popen`` has it, or ``None`` while it runs.
    """

    def __init__(self, pid: int, forks: "Forks") -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forks = forks

    def poll(self) -> int | None:
        """Return its exit code, or ``None`` while it runs."""
        if self.returncode is None:
            self.returncode = self._forks.code_of(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than ``timeout`` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(LOOK)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts stages as copies of a process that is started with the first one."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._requests = self._answers = -1
        self._told = b""
        self._started: list[int] = []
        self._codes: dict[int, int] = {}

    def start(self, arguments: Sequence[str], output: Path | None = None) -> Forked:
        """Start a worker, and return once its process is there.

        Args:
            arguments: those of ``selectmoe_core.runner.worker``.
            output: the file that it prints to; ``None`` for where this process prints to.

        Raises:
            StageError: the process that would be copied has ended.
        """
        server = self._server = self._server or self._launched()
        request = {"arguments": list(arguments), "output": output and str(output)}
        with suppress(BrokenPipeError):
            os.write(self._requests, json.dumps(request).encode() + b"\n")
        while not self._started:
            if not self._look(wait=True):
                raise StageError(
                    f"the process that stages are copied from has ended with {server.wait()}",
                    hint="start the same command again, with a smaller --parallel if memory ran "
                    "out; finished work is kept",
                )
        return Forked(self._started.pop(), self)

    def code_of(self, pid: int) -> int | None:
        """Return the exit code of a process that has ended."""
        if pid not in self._codes and not self._look(wait=False):
            return -signal.SIGTERM  # Linux ends the copies with their original
        return self._codes.get(pid)

    def close(self) -> None:
        """End the process that is copied; no copy may be at work."""
        if self._server is not None:
            self._server.kill()  # it has nothing to clean up, and may be importing for seconds
            self._server.wait()
            os.close(self._requests)
            os.close(self._answers)
            self._server = None

    def _launched(self) -> subprocess.Popen[bytes]:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        command = [sys.executable, *bound(SERVER, str(requests), str(answers))]
        try:
            with interrupts_held():
                return subprocess.Popen(command, pass_fds=(requests, answers))
        finally:
            os.close(requests)
            os.close(answers)

    def _look(self, *, wait: bool) -> bool:
        """Read what the process has told; return whether it is still there."""
        while select.select([self._answers], [], [], None if wait else 0)[0]:
            found = os.read(self._answers, 65536)
            if not found:
                return False
            *lines, self._told = (self._told + found).split(b"\n")
            for line in lines:
                what, pid, *code = line.split()
                if what == b"started":
                    self._started.append(int(pid))
                else:
                    self._codes[int(pid)] = int(code[0])
            if wait:
                break
        return True

"""What the benchmarks share: processes with their time and memory, cold caches, JSON lines.

Imports nothing but the standard library: files that a live process has mapped stay in the page
cache, so a benchmark of cold starts must not have loaded what it starts.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

SELECTMOE = (sys.executable, "-m", "selectmoe_core")


@dataclass(frozen=True)
class Measured:
    """One process.

    Attributes:
        seconds: wall time from start to end.
        anonymous: peak of its anonymous resident memory in bytes, looked at every 10 ms.
        output: what it printed to its standard output, unless that was shown.
    """

    seconds: float
    anonymous: int
    output: str


def call(
    command: Iterable[str], environment: Mapping[str, str] | None = None, *, show: bool = False
) -> Measured:
    """Run a command, in this process's environment or another; stop where it fails.

    Args:
        command: the program and its arguments.
        environment: of the command.
        show: let what it prints pass through.

    Raises:
        RuntimeError: it failed; what it printed is told.
    """
    command = list(command)
    start = time.monotonic()
    pipe = None if show else subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment)
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], anonymous(process.pid))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    out, err = process.communicate()
    seconds = time.monotonic() - start
    watcher.join()
    output, errors = ((text or b"").decode() for text in (out, err))
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{output}\n{errors}")
    return Measured(seconds, peak[0], output)


def anonymous(process: int) -> int:
    """Return a process's anonymous resident memory in bytes; 0 where Linux does not say."""
    try:
        with Path(f"/proc/{process}/status").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def drop_caches() -> bool:
    """Write everything back and empty the page cache, where we may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="utf-8")
    except OSError:
        return False
    return True


def described(*packages: str) -> dict[str, Any]:
    """Name the machine, its load and the versions of packages."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Return median, smallest and largest, and the values as they came."""
    all_of = [round(value, 4) for value in values]
    return {
        "median": statistics.median(all_of),
        "min": min(all_of),
        "max": max(all_of),
        "all": all_of,
    }


def append(
    path: Path, line: Mapping[str, Any], default: Callable[[Any], Any] | None = None
) -> None:
    """Add a result to a file of JSON lines; ``default`` as ``json.dumps`` takes it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, default=default) + "\n")

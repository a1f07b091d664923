"""What the process of a stage reports to the run's main process: a file of JSON lines.

A file works wherever a stage can run: in one child, in several that accelerate starts, and in the
processes of another launcher. Only the first process of a stage writes, and the main process reads
the lines as they come.
"""

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selectmoe_core.runtime.progress import Advance

BAR_SECONDS = 0.5
"""Time between two reports of a bar."""


def send(path: Path, event: Mapping[str, Any]) -> None:
    """Append an event; a line is written in one piece, so that threads may send too."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


class NewLines:
    """The lines of a file that another process writes, each once and whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the lines that were completed since the last time."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # the rest of it is still to come
                self._place += len(line)
                yield line.decode("utf-8", "replace").rstrip("\r\n")


class SentProgress:
    """Sends bars as events, for the main process to show."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count()

    @contextmanager
    def task(
        self, label: str, total: float | None, unit: str = "examples", done: float = 0
    ) -> Iterator[Advance]:
        """Yield a function that counts units and reports them every moment."""
        bar = next(self._numbers)
        first = {"label": label, "total": total, "unit": unit, "done": done}
        send(self.path, {"bar": bar, **first})
        lock = threading.Lock()
        waiting, last = 0.0, time.monotonic()

        def advance(amount: float) -> None:
            nonlocal waiting, last
            with lock:
                waiting += amount
                if (now := time.monotonic()) - last >= BAR_SECONDS:
                    send(self.path, {"bar": bar, "advance": waiting})
                    waiting, last = 0.0, now

        try:
            yield advance
        finally:
            send(self.path, {"bar": bar, "advance": waiting, "end": True})

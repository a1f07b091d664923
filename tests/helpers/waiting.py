"""Waiting for what another process or thread does."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

PATIENCE = 600.0
"""Seconds until a test gives up; the machine may be busy."""

T = TypeVar("T")


def wait_for(look: Callable[[], T], by: subprocess.Popen[Any] | None = None) -> T:
    """Return what ``look`` returns once that is true; the process ``by`` must live until then."""
    last = time.monotonic() + PATIENCE
    while not (found := look()):
        assert by is None or by.poll() is None, "it ended before"
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.02)
    return found


def has(path: Path, text: str) -> bool:
    """Whether a file is there and holds a text."""
    return path.exists() and text in path.read_text(encoding="utf-8")

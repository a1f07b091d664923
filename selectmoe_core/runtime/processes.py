"""No process goes on when the one that started it has gone."""

import ctypes
import signal
import sys

PARENT_DEATH = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""


def die_with_parent() -> None:
    """Let Linux end this process when its parent dies, so that no orphan goes on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGTERM)

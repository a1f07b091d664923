"""How processes end: a child ends with its parent, a run ends when a signal asks it to.

``python -m selectmoe_core.runtime.processes PARENT MODULE ARGUMENTS...`` runs a module as ``python
-m MODULE`` does. The process ends with the process of the id PARENT, from the start: nothing else
is imported before.
"""

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT_DEATH = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""
INTERRUPTED = 130
"""Exit code of a process that Ctrl-C has ended."""


def die_with_parent(parent: int | None = None) -> None:
    """Let Linux end this process when its parent dies, so that no orphan continues to write.

    Args:
        parent: the id of the process that started this one. If the parent is another process by
            now, the first one has died already, and this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        sys.exit("the process that started this one has ended")


def bound(module: str, *arguments: str) -> list[str]:
    """Return Python's arguments to run a module in a child that ends with this process."""
    return ["-m", __name__, str(os.getpid()), module, *arguments]


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a child that is started in the block get Ctrl-C only when it can end without a traceback.

    The child inherits that SIGINT is blocked; ``main`` below lets it through.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Ended(KeyboardInterrupt):
    """A signal asked this process to end; it ends as at Ctrl-C, with the signal's exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a run to end."""
_asked: list[Ended] = []
"""What signals have raised in the block of ``ended_by_signals``."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise ``Ended`` in the block on Ctrl-C, SIGTERM and SIGHUP; an ignored signal stays ignored.

    What is raised in the middle of a library may be lost there: see ``not_swallowed``.
    """

    def end(number: int, _: FrameType | None) -> None:
        _asked.append(Ended(number))
        raise _asked[-1]

    numbers = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        _asked.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def not_swallowed() -> Iterator[None]:
    """Raise at the end of the block what a signal has raised in it, if a library has caught that.

    pyarrow imports pandas when it first needs to know whether it is there, and takes whatever is
    raised in that second for an answer. What a library makes an error of its own is raised too.
    """
    try:
        yield
    except Exception:
        if _asked:
            raise _asked[0] from None
        raise
    if _asked:
        raise _asked[0]


def _end_once(number: int, _: FrameType | None) -> None:
    """Raise at the first interrupt alone.

    At Ctrl-C the terminal interrupts this process and its parent, and the parent passes it on: the
    second interrupt would fall into the clean-up of the first. If the user presses Ctrl-C again,
    the parent kills this process.
    """
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Run a module that ends with the parent that the command line names."""
    parent, module, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    sys.argv[1:] = arguments
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_once)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # before the module handles it: most of that time is its imports
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

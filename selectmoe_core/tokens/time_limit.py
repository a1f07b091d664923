"""A time limit for Python code that others wrote."""

import ctypes
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

ResultT = TypeVar("ResultT")

CHECK_SECONDS = 0.2


class _TimeUpError(BaseException):
    """Raised in the thread whose time is over; no ``except Exception`` catches it."""


class TimeLimit:
    """Limits the processor time of calls, from a second thread that runs during the ``with`` block.

    A signal would work only in the main thread, but rows are rendered in others too. Time in which
    the thread does not run, as on a busy or suspended machine, does not count.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._since: float | None = None
        self._fired = False
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watcher.join()

    def call(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what ``work`` returns.

        Raises:
            TimeoutError: the work took longer than the limit.
        """
        try:
            self._since = self._clock()
            try:
                return work()
            finally:
                self._stop()
        except _TimeUpError:
            self._stop()
            raise TimeoutError(f"it took more than {self.seconds:g} s") from None

    def _stop(self) -> None:
        with self._lock:
            self._since = None
            if self._fired:  # it may arrive now, but must not arrive later
                self._fired = False
                _raise_in(self._thread, None)

    def _watch(self) -> None:
        while not self._over.wait(CHECK_SECONDS):
            with self._lock:
                if self._since is not None and self._clock() - self._since > self.seconds:
                    self._since, self._fired = None, True
                    _raise_in(self._thread, _TimeUpError)

    def _clock(self) -> float:
        clock_of = getattr(time, "pthread_getcpuclockid", None)  # not on every system
        return time.monotonic() if clock_of is None else time.clock_gettime(clock_of(self._thread))


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )

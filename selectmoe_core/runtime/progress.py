"""Progress of long work: rich bars on a terminal, plain lines elsewhere, nothing when quiet."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from selectmoe_core.runtime.terminal import SafeStream, one_line, raw_stream

Advance = Callable[[float], None]
"""A function that is called with the number of units just done."""

PLAIN_SECONDS = 10.0
"""Time between two plain lines."""


class Progress(Protocol):
    """Shows how far long work is."""

    def task(
        self, label: str, total: float | None, unit: str = "examples", done: float = 0
    ) -> AbstractContextManager[Advance]:
        """Open a bar.

        Args:
            label: the name of the work.
            total: how many units there are; ``None`` if that is not known.
            unit: the name of the units.
            done: how many units an earlier run has done; they count for the bar, not for the rate.
        """
        ...


class NoProgress:
    """Prints nothing."""

    @contextmanager
    def task(
        self,
        label: str,  # noqa: ARG002
        total: float | None,  # noqa: ARG002
        unit: str = "examples",  # noqa: ARG002
        done: float = 0,  # noqa: ARG002
    ) -> Iterator[Advance]:
        """Yield a function that does nothing."""
        yield lambda _: None


class RichProgress:
    """Bars with rate and remaining time on stderr; threads may open some too."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._open = 0
        self._lock = threading.Lock()

    @contextmanager
    def task(
        self, label: str, total: float | None, unit: str = "examples", done: float = 0
    ) -> Iterator[Advance]:
        """Yield the bar's advance function."""
        with self._lock:
            if not self._open:
                self._bars = _rich_bars()
                self._bars.start()
                # Rich now replaces both streams, so that lines appear above the bars.
                sys.stdout, sys.stderr = SafeStream(sys.stdout), SafeStream(sys.stderr)
            self._open += 1
            bars = self._bars
        task = bars.add_task(one_line(label), total=total, completed=done, unit=unit)
        try:
            yield lambda amount: bars.advance(task, amount)
        finally:
            bars.remove_task(task)
            with self._lock:
                self._open -= 1
                if not self._open:
                    bars.stop()


def _rich_bars() -> Any:  # noqa: ANN401  (rich is imported here alone)
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Label(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"  {task.description}")  # not markup: labels may hold brackets

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            rate = _speed(task.speed, f" {task.fields['unit']}") if task.speed else ""
            return Text(rate, style="cyan")

    return progress.Progress(
        Label(),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=Console(file=raw_stream(sys.stderr)),
        transient=True,
    )


class PlainProgress:
    """A line every few seconds, for logs and pipes."""

    @contextmanager
    def task(
        self, label: str, total: float | None, unit: str = "examples", done: float = 0
    ) -> Iterator[Advance]:
        """Yield a function that counts units and prints a line every few seconds."""
        start = last = time.monotonic()
        before = done

        def advance(amount: float) -> None:
            nonlocal done, last
            done += amount
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS:
                last = now
                rate = (done - before) / max(now - start, 1e-9)
                sys.stderr.write(_line(one_line(label), done, total, unit, rate))

        yield advance


def _line(label: str, done: float, total: float | None, unit: str, rate: float) -> str:
    if not total:
        return f"  {label}: {done:,.0f} {unit}, {_speed(rate)}\n"
    left = (total - done) / max(rate, 1e-9)
    return f"  {label}: {done:,.0f} of {total:,.0f} {unit}, {_speed(rate)}, {left:,.0f} s left\n"


def _speed(rate: float, unit: str = "") -> str:
    """Return units a second; below one a second two digits, so that it is not shown as 0."""
    return f"{rate:,.0f}{unit}/s" if rate >= 1 else f"{rate:.2g}{unit}/s"


def progress_kind(kind: str) -> str:
    """Return the kind that ``auto`` means on this stderr, and any other kind unchanged."""
    if kind == "auto":
        return "rich" if sys.stderr.isatty() else "plain"
    return kind


def make_progress(kind: str) -> Progress:
    """Return the progress of a kind: ``none``, ``plain``, ``rich`` or ``auto``."""
    kinds: dict[str, type[Progress]] = {
        "none": NoProgress,
        "plain": PlainProgress,
        "rich": RichProgress,
    }
    return kinds[progress_kind(kind)]()

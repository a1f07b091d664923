"""Parts of a benchmark: run one by one, printed and written to a file of JSON lines at once.

Each line of the file is ``{"part": NAME, ...figures, "took": SECONDS}``, or
``{"part": NAME, "failed": TRACEBACK, "took": SECONDS}``. A part that fails does not stop the
others. Imports nothing but the standard library, for the reason that ``measuring`` gives.
"""

import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from measuring import append

Figures = Mapping[str, Any]
Work = Callable[[], Figures | Iterator[tuple[str, Figures]]]
"""Returns a part's figures, or yields named figures one after the other: a line each."""
LONG = 16
"""A list of more values is written but not printed."""


class Parts:
    """The parts of a benchmark and what they found.

    Attributes:
        found: the figures of each line that did not fail, by its name.
        failed: how many parts failed.
    """

    def __init__(
        self, path: Path, *, after: Callable[[], None] = lambda: None, seconds: float = math.inf
    ) -> None:
        """Add to the file ``path``.

        Args:
            path: the file of JSON lines; what it holds already stays.
            after: called after each part, also one that failed, as to free memory.
            seconds: no part begins so long after the first.
        """
        self.found: dict[str, Figures] = {}
        self.failed = 0
        self._path = path
        self._after = after
        self._seconds = seconds
        self._start = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def run_all(self, parts: Mapping[str, Work], only: Iterable[str] | None = None) -> int:
        """Run the parts, or those named; return how many failed."""
        for name in only or parts:
            self.run(name, parts[name])
        return self.failed

    def run(self, name: str, work: Work, **about: Any) -> None:  # noqa: ANN401
        """Run a part; print and write what it returns, or each thing that it yields.

        Args:
            name: of the part.
            work: what is run.
            about: figures that stand before those of the part, also where it fails.
        """
        if (spent := time.monotonic() - self._start) > self._seconds:
            print(f"{name}: left out, {spent:.0f} s are over", flush=True)
            return
        start = time.monotonic()
        try:
            figures = work()
            if isinstance(figures, Mapping):
                self.write(name, about | dict(figures), start)
            else:
                for what, of_step in figures:
                    self.write(f"{name}: {what}", about | dict(of_step), start)
                    start = time.monotonic()
        except Exception:  # the other parts are worth having
            self.failed += 1
            traceback.print_exc()
            self._line(name, about | {"failed": traceback.format_exc()}, start)
        finally:
            self._after()

    def write(self, name: str, figures: Figures, start: float | None = None) -> None:
        """Print and write a line that is known already; ``start`` is when its work began."""
        self.found[name] = figures
        self._line(name, figures, start)

    def _line(self, name: str, figures: Figures, start: float | None) -> None:
        took = {} if start is None else {"took": round(time.monotonic() - start, 1)}
        append(self._path, {"part": name, **figures, **took}, default=str)
        print(f"{name}:", flush=True)
        for key, value in (dict(figures) | took).items():
            print(f"  {key:<40} {_shown(key, value)}", flush=True)


def _shown(key: str, value: object) -> str:
    if key == "failed":
        return str(value).strip().splitlines()[-1]
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list) and len(value) > LONG:
        return f"{len(value)} values, in the file"
    if isinstance(value, int) and key.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    return str(value)

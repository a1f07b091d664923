"""What the processes of the running nodes report, followed by the main process."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from selectmoe_core.runtime.events import NewLines
from selectmoe_core.runtime.progress import Advance, Progress
from selectmoe_core.stages.node_spec import NodeSpec

Metrics = Callable[[NodeSpec, int, Mapping[str, float]], None]
"""Called with each point of a training curve."""


class Watch:
    """Follows one node: points of its training curve, its bars, and what it prints.

    Args:
        spec: the node.
        metrics: called with each point of its training curve.
        progress: shows its bars, where it sends some.
        printed: the file that it prints to, where it does not print to the terminal.
        say: prints a line of it.
    """

    def __init__(
        self,
        spec: NodeSpec,
        metrics: Metrics,
        progress: Progress,
        printed: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.spec = spec
        self._metrics = metrics
        self._bars = _Bars(progress, spec.key)
        self._events = NewLines(spec.events) if spec.events else ()
        self._printed = NewLines(printed) if printed else ()
        self._say = say

    def look(self) -> None:
        """Pass on what is new."""
        for line in self._events:
            with suppress(ValueError):  # of a process that was killed while it wrote
                self._pass_on(json.loads(line))
        for line in self._printed:
            self._say(f"  {self.spec.key}: {line.strip()}")

    def end(self) -> None:
        """Pass on the rest, and close the bars of a node that has ended, in whatever way."""
        self.look()
        self._bars.close()

    def _pass_on(self, event: Mapping[str, Any]) -> None:
        if "metrics" in event:
            self._metrics(self.spec, int(event["step"]), event["metrics"])
        else:
            self._bars.show(event)


class _Bars:
    """The bars of a node in the progress of the main process."""

    def __init__(self, progress: Progress, node: str) -> None:
        self._progress = progress
        self._node = node
        self._open: dict[int, tuple[ExitStack, Advance]] = {}

    def show(self, event: Mapping[str, Any]) -> None:
        """Open, advance or close a bar."""
        bar = int(event["bar"])
        if "label" in event:
            stack = ExitStack()
            label = f"{self._node}: {event['label']}"
            task = self._progress.task(label, event["total"], event["unit"], event["done"])
            self._open[bar] = stack, stack.enter_context(task)
        elif bar in self._open:
            stack, advance = self._open[bar]
            if event["advance"]:
                advance(event["advance"])
            if "end" in event:
                del self._open[bar]
                stack.close()

    def close(self) -> None:
        """Close the bars that are left."""
        while self._open:
            self._open.popitem()[1][0].close()

"""The trackers of a run: an observer that passes on what it is told."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selectmoe_core.plan.node import Plan
from selectmoe_core.plan.trackers import bound_trackers
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.plugin.specs import hookimpl
from selectmoe_core.plugin.tracker import TrackedResult, TrackedRun, Tracker
from selectmoe_core.report import RunRecord
from selectmoe_core.store import Artifact

NAME = "the trackers of the run"
"""The observer, in warnings: no plugin has such a name."""
FILES = ("report.html", "report.md", "report.json", "compare.html", "compare.md", "compare.json")


class Tracking:
    """Passes on losses, the times of stages and the result of a run to its trackers.

    Attributes:
        verdict: sentences on what was found, once the report is written.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers
        self.verdict: Sequence[str] = ()

    @hookimpl
    def selectmoe_stage_finished(self, node: str, artifact: Artifact) -> None:
        """Keep how long a stage took."""
        processes = float(artifact.details.get("processes", 1))
        values = {"seconds": artifact.seconds, "device_seconds": artifact.seconds * processes}
        for tracker in self.trackers:
            tracker.log(tracked_name(node), 0, values)

    @hookimpl
    def selectmoe_metrics(self, node: str, step: int, values: Mapping[str, float]) -> None:
        """Keep a point of a training curve."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for tracker in self.trackers:
            tracker.log(tracked_name(node), step, finite)

    @hookimpl
    def selectmoe_run_finished(self, run: Path) -> None:
        """Keep the verdict, the results and the report."""
        files = [run / name for name in FILES if (run / name).is_file()]
        self._end(TrackedResult("", self.verdict, dict(_results(run)), files))

    @hookimpl
    def selectmoe_run_failed(self, error: str) -> None:
        """Keep why there is no result."""
        self._end(TrackedResult(error, (), {}, ()))

    def _end(self, result: TrackedResult) -> None:
        for tracker in self.trackers:
            tracker.end(result)


@contextmanager
def tracked(plan: Plan, registry: Registry, folder: Path) -> Iterator[Tracking]:
    """Let the recipe's trackers follow what happens in the block.

    Raises:
        PartError: a tracker cannot be started.
    """
    trackers = [bound.build() for bound in bound_trackers(plan.recipe, registry)]
    run = TrackedRun(plan.recipe.head.name, folder, dict(_flat(plan.recipe.resolved)))
    for tracker in trackers:
        tracker.start(run)
    tracking = Tracking(trackers)
    registry.manager.register(tracking, name=NAME)
    try:
        yield tracking
    finally:
        registry.manager.unregister(name=NAME)


def tracked_name(node: str) -> str:
    """Return a node's name as every tracker takes it."""
    return re.sub(r"[^A-Za-z0-9._/-]+", "-", node.replace("@", "/"))


def _results(run: Path) -> Iterator[tuple[str, float]]:
    """Yield the result of every arm on every task."""
    for node in RunRecord.load(run).nodes:
        artifact = Artifact.load(node.folder) if node.stage == "evaluate" else None
        tasks = artifact.facts.get("tasks", {}) if artifact else {}
        for arm in node.arms:
            for task, facts in tasks.items():
                value = facts.get("value")
                if isinstance(value, int | float) and math.isfinite(value):
                    yield tracked_name(f"{arm}/{task}"), float(value)


def _flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value

"""What a tracker is: it shows a run while it lasts, and keeps what came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker may know of a run when it starts.

    Attributes:
        name: the recipe's name.
        folder: the run's folder; its last three parts say recipe, day and time.
        options: the options of the recipe by their dotted names.
    """

    name: str
    folder: Path
    options: Mapping[str, Any]


@dataclass(frozen=True)
class TrackedResult:
    """How a run ended.

    Attributes:
        error: why it has no result; empty where it has one.
        verdict: sentences on what was found.
        values: results by arm and task, as ``selected/arc_easy``.
        files: the report and its forms.
    """

    error: str
    verdict: Sequence[str]
    values: Mapping[str, float]
    files: Sequence[Path]


class Tracker(Protocol):
    """Shows a run while it lasts, and keeps it; the main process calls it."""

    def start(self, run: TrackedRun) -> None:
        """Begin to track a run. An error here ends the run before its first stage."""
        ...

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Keep values of one step of a node, for example a loss.

        Args:
            name: the node, as ``train/router-1``: letters, digits, dashes, dots and slashes.
            step: its step; those of one node only grow.
            values: finite numbers by name.
        """
        ...

    def end(self, result: TrackedResult) -> None:
        """Keep the result, and end the tracking of the run."""
        ...

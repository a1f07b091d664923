"""The trackers: what a run reports, in the words of each library."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from selectmoe_core import TrackedResult, TrackedRun
from selectmoe_trackers.config import MlflowConfig, TensorBoardConfig, TrackioConfig, WandbConfig

LONGEST = 250
"""Characters of an option that every library keeps."""


class TensorBoard:
    """Writes event files; see ``TensorBoardConfig``."""

    def __init__(self, config: TensorBoardConfig) -> None:
        self.config = config
        self.tracker: Any = None

    def start(self, run: TrackedRun) -> None:
        """Open the files of the run, and keep its options as text."""
        folder = self.config.folder or run.folder / "tensorboard"
        self.tracker = _started(
            TensorBoardTracker(run_name(run) if self.config.folder else "", folder)
        )
        rows = [f"| {name} | {value} |" for name, value in plain(run.options).items()]
        self.tracker.log({"recipe": "\n".join(["| option | value |", "|---|---|", *rows])})

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Keep values of one step of a node."""
        self.tracker.log({f"{name}/{key}": value for key, value in values.items()}, step=step)

    def end(self, result: TrackedResult) -> None:
        """Keep the verdict, the results and the report as text; close the files."""
        self.tracker.log({f"result/{key}": value for key, value in result.values.items()}, step=0)
        if said := _said(result):
            self.tracker.log({"verdict": said})
        for path in result.files:
            if path.suffix == ".md":
                self.tracker.log({path.name: path.read_text(encoding="utf-8")})
        self.tracker.finish()


class Wandb:
    """Keeps runs in Weights & Biases; see ``WandbConfig``."""

    def __init__(self, config: WandbConfig) -> None:
        self.config = config
        self.tracker: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begin a run, with the recipe's options."""
        options = {"name": run_name(run), "dir": str(run.folder), "mode": self.config.mode}
        self.tracker = _started(WandBTracker(self.config.project, **options))
        self.tracker.store_init_configuration(plain(run.options))

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Keep values of one step of a node.

        The step is a value: that of a run may only grow, and every node counts from its first.
        """
        named = {f"{name}/{key}": value for key, value in values.items()}
        self.tracker.log({**named, f"{name}/step": step})

    def end(self, result: TrackedResult) -> None:
        """Keep the verdict and the results in the summary, and the report as files."""
        run = self.tracker.tracker
        run.summary.update({f"result/{key}": value for key, value in result.values.items()})
        run.summary["verdict"] = _said(result)
        for path in result.files:
            # A copy: W&B would only link it, and the link ends where the outputs are moved.
            copied = Path(shutil.copy2(path, run.dir))
            run.save(str(copied), base_path=run.dir, policy="now")
        run.finish(exit_code=1 if result.error else 0)


class Mlflow:
    """Keeps runs in MLflow; see ``MlflowConfig``."""

    def __init__(self, config: MlflowConfig) -> None:
        self.config = config
        self.tracker: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begin a run, with the recipe's options."""
        import mlflow

        outputs = run.folder.parents[2]
        own = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{outputs / 'mlflow.db'}"
        mlflow.set_tracking_uri(self.config.uri or own)
        files = None if self.config.uri else str(outputs / "mlflow")
        tracker = MLflowTracker(self.config.experiment, files, run_name=run_name(run))
        self.tracker = _started(tracker)
        self.tracker.store_init_configuration(plain(run.options))

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Keep values of one step of a node."""
        self.tracker.log({f"{name}/{key}": value for key, value in values.items()}, step=step)

    def end(self, result: TrackedResult) -> None:
        """Keep the results, the verdict as text, and the report as artifacts."""
        import mlflow

        self.tracker.log({f"result/{key}": value for key, value in result.values.items()}, step=0)
        if said := _said(result):
            mlflow.log_text(said, "verdict.md")
        for path in result.files:
            mlflow.log_artifact(str(path))
        mlflow.end_run(status="FAILED" if result.error else "FINISHED")


class Trackio:
    """Keeps runs in trackio; see ``TrackioConfig``."""

    def __init__(self, config: TrackioConfig) -> None:
        self.config = config
        self.tracker: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begin a run, with the recipe's options."""
        options = {"name": run_name(run), "config": plain(run.options)}
        with redirect_stdout(sys.stderr):  # stdout is for results, and trackio prints to it
            self.tracker = _started(TrackioTracker(self.config.project, **options))

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Keep values of one step of a node; the step is a value, as in Weights & Biases."""
        named = {f"{name}/{key}": value for key, value in values.items()}
        self.tracker.log({**named, f"{name}/step": step})

    def end(self, result: TrackedResult) -> None:
        """Keep the results, the verdict and the report as text."""
        import trackio

        values: dict[str, Any] = {f"result/{key}": v for key, v in result.values.items()}
        if said := _said(result):
            values["verdict"] = trackio.Markdown(said)
        for path in result.files:
            if path.suffix == ".md":
                values[path.stem] = trackio.Markdown(path.read_text(encoding="utf-8"))
        with redirect_stdout(sys.stderr):
            if values:
                self.tracker.log(values)
            self.tracker.finish()


def run_name(run: TrackedRun) -> str:
    """Return a name that no other run of the outputs folder has: recipe, day and time."""
    return "-".join(run.folder.parts[-3:])


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as text and numbers; a list becomes JSON, and long text is cut."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        simple = isinstance(value, bool | int | float)
        found[name] = value if simple else text[:LONGEST]
    return found


def _started(tracker: GeneralTracker) -> GeneralTracker:
    """Start a tracker of accelerate, as ``Accelerator.init_trackers`` does."""
    from accelerate import PartialState

    PartialState(cpu=True)  # accelerate asks it whether this is the main process
    tracker.start()
    return tracker


def _said(result: TrackedResult) -> str:
    return (
        f"failed: {result.error}" if result.error else "\n".join(f"- {s}" for s in result.verdict)
    )

"""What this plugin offers: ``tensorboard``, ``wandb``, ``mlflow`` and ``trackio``."""

from typing import Any

from selectmoe_core import About, Component, Tracker, hookimpl, load
from selectmoe_trackers.config import (
    MlflowConfig,
    TensorBoardConfig,
    TrackioConfig,
    WandbConfig,
)

ABOUT = About(
    meaning="losses, trash share, stage times, results, verdict and report of each run",
    cost="a line for each step that is logged",
)


@hookimpl
def selectmoe_trackers() -> list[Component[Any, Tracker]]:
    """Offer the trackers, each of which needs its own package."""
    return [
        Component(
            "tensorboard",
            TensorBoardConfig,
            load("selectmoe_trackers.trackers:TensorBoard"),
            about=ABOUT,
            requires=("tensorboard",),
        ),
        Component(
            "wandb",
            WandbConfig,
            load("selectmoe_trackers.trackers:Wandb"),
            about=ABOUT,
            requires=("wandb",),
        ),
        Component(
            "mlflow",
            MlflowConfig,
            load("selectmoe_trackers.trackers:Mlflow"),
            about=ABOUT,
            requires=("mlflow",),
        ),
        Component(
            "trackio",
            TrackioConfig,
            load("selectmoe_trackers.trackers:Trackio"),
            about=ABOUT,
            requires=("trackio",),
        ),
    ]

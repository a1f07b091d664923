"""What this plugin offers: ``tensorboard``, ``wandb``, ``mlflow`` and ``trackio``."""

from collections.abc import Callable
from typing import Any

from selectmoe_core import About, Component, Config, Tracker, hookimpl, load
from selectmoe_trackers.config import (
    MlflowConfig,
    TensorBoardConfig,
    TrackioConfig,
    WandbConfig,
)


@hookimpl
def selectmoe_trackers() -> list[Component[Any, Tracker]]:
    """Offer the trackers, each of which needs its own package."""
    return [
        _tracker(
            "tensorboard",
            TensorBoardConfig,
            load("selectmoe_trackers.trackers:TensorBoard"),
            "tensorboard",
        ),
        _tracker("wandb", WandbConfig, load("selectmoe_trackers.trackers:Wandb"), "wandb"),
        _tracker("mlflow", MlflowConfig, load("selectmoe_trackers.trackers:Mlflow"), "mlflow"),
        _tracker("trackio", TrackioConfig, load("selectmoe_trackers.trackers:Trackio"), "trackio"),
    ]


def _tracker(
    name: str, config: type[Config], part: Callable[[Any], Tracker], package: str
) -> Component[Any, Tracker]:
    return Component(
        name,
        config,
        part,
        about=About(
            meaning="losses, trash share, stage times, results, verdict and report of each run",
            cost="a line for each step that is logged",
        ),
        requires=(package,),
    )

"""What this plugin offers: ``tensorboard``, ``wandb``, ``mlflow`` and ``trackio``."""

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
        _tracker("tensorboard", TensorBoardConfig, "TensorBoard", "tensorboard"),
        _tracker("wandb", WandbConfig, "Wandb", "wandb"),
        _tracker("mlflow", MlflowConfig, "Mlflow", "mlflow"),
        _tracker("trackio", TrackioConfig, "Trackio", "trackio"),
    ]


def _tracker(name: str, config: type[Config], part: str, package: str) -> Component[Any, Tracker]:
    return Component(
        name,
        config,
        load(f"selectmoe_trackers.trackers:{part}"),
        about=About(
            meaning="losses, trash share, stage times, results, verdict and report of each run",
            cost="a line for each step that is logged",
        ),
        requires=(package,),
    )

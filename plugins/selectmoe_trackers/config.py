"""Options of the trackers."""

from pathlib import Path
from typing import Literal

from selectmoe_core import Config


class TensorBoardConfig(Config):
    """Write curves, times and the verdict for TensorBoard.

    See them with ``tensorboard --logdir outputs``.
    """

    folder: Path | None = None
    """Where to write; by default ``tensorboard`` in the run's folder."""


class WandbConfig(Config):
    """Keep runs in Weights & Biases.

    The report is a file of the run.
    """

    project: str = "selectmoe"
    """The project of the runs."""
    mode: Literal["online", "offline"] = "offline"
    """``offline`` writes into the run's folder and sends nothing; ``wandb sync`` sends it later."""


class MlflowConfig(Config):
    """Keep runs in MLflow.

    The report is an artifact of the run.
    """

    experiment: str = "selectmoe"
    """The experiment of the runs."""
    uri: str | None = None
    """The tracking server or database; by default what MLFLOW_TRACKING_URI says, otherwise a
    database ``mlflow.db`` in the outputs folder."""


class TrackioConfig(Config):
    """Keep runs in trackio, which stays on this machine.

    See them with ``trackio show``.
    """

    project: str = "selectmoe"
    """The project of the runs."""

"""The hooks that a plugin may implement. Pluggy reads only their signatures."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from selectmoe_core.data.corruption import Damage
from selectmoe_core.plugin.command import Command
from selectmoe_core.plugin.component import Component
from selectmoe_core.plugin.executor import Executor
from selectmoe_core.plugin.protocols import (
    Converter,
    Embedder,
    Evaluator,
    Filter,
    Reader,
    Scorer,
    Selector,
    TableScorer,
    Trainer,
)
from selectmoe_core.plugin.tracker import Tracker
from selectmoe_core.store import Artifact

PROJECT = "selectmoe"
API = 1
"""The version of the plugin interface: a plugin's module says with ``api = 1`` which it needs."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def selectmoe_readers() -> Iterable[Component[Any, Reader]]:
    """Offer readers: they find the examples of a pool."""
    return ()


@hookspec
def selectmoe_filters() -> Iterable[Component[Any, Filter]]:
    """Offer filters: they mark rows to leave out, and groups whose best row alone is kept."""
    return ()


@hookspec
def selectmoe_converters() -> Iterable[Component[Any, Converter]]:
    """Offer converters: they turn a pretrained model into a Select-MoE model."""
    return ()


@hookspec
def selectmoe_embedders() -> Iterable[Component[Any, Embedder]]:
    """Offer embedders: they turn examples of the pool and of the targets into vectors."""
    return ()


@hookspec
def selectmoe_scorers() -> Iterable[Component[Any, Scorer | TableScorer]]:
    """Offer scorers: they give every example a number; higher is better."""
    return ()


@hookspec
def selectmoe_selectors() -> Iterable[Component[Any, Selector]]:
    """Offer selectors: they decide from the scores which examples to keep."""
    return ()


@hookspec
def selectmoe_trainers() -> Iterable[Component[Any, Trainer]]:
    """Offer trainers: they warm up a Select-MoE model or fine-tune a target model."""
    return ()


@hookspec
def selectmoe_evaluators() -> Iterable[Component[Any, Evaluator]]:
    """Offer evaluators: they measure a model."""
    return ()


@hookspec
def selectmoe_trackers() -> Iterable[Component[Any, Tracker]]:
    """Offer trackers: they show a run's losses, times and result while it lasts."""
    return ()


@hookspec
def selectmoe_executors() -> Iterable[Component[Any, Executor]]:
    """Offer executors: they run the processes of stages, on this host or on others."""
    return ()


@hookspec
def selectmoe_model_types() -> Mapping[str, Callable[[], None]]:
    """Offer functions that register a model type with transformers, by model type."""
    return {}


@hookspec
def selectmoe_bundled_models() -> Mapping[str, Path]:
    """Offer folders of models that the plugin ships: recipes name them ``bundled:NAME``."""
    return {}


@hookspec
def selectmoe_bundled_tasks() -> Mapping[str, Path]:
    """Offer folders of evaluation tasks that the plugin ships, as ``bundled:NAME`` in recipes."""
    return {}


@hookspec
def selectmoe_damages() -> Iterable[Damage]:
    """Offer kinds of damage: the contrastive warm-up learns from them, audits plant them."""
    return ()


@hookspec
def selectmoe_commands() -> Iterable[Command]:
    """Offer commands ``selectmoe NAME``. A command is imported when it is called."""
    return ()


@hookspec
def selectmoe_run_started(run: Path) -> None:
    """Called in the main process when a run starts; ``run`` is its folder."""


@hookspec
def selectmoe_stage_finished(run: Path, node: str, artifact: Artifact) -> None:
    """Called when a stage has finished; ``node`` names it, and the artifact must not be changed."""


@hookspec
def selectmoe_metrics(
    run: Path, node: str, stage: str, step: int, values: Mapping[str, float]
) -> None:
    """Called in the main process with each point of a training curve."""


@hookspec
def selectmoe_run_finished(run: Path) -> None:
    """Called when a run has ended; its report is in the folder ``run``."""


@hookspec
def selectmoe_run_failed(run: Path, error: str) -> None:
    """Called when a run has ended without a result: with its error, or ``interrupted``."""

"""What this plugin offers: the evaluator, and a reader of target examples from its tasks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selectmoe_core import About, Component, Evaluator, Need, Reader, hookimpl, load
from selectmoe_lmeval.config import LmEvalConfig, LmEvalTargetsConfig


@hookimpl
def selectmoe_readers() -> list[Component[Any, Reader]]:
    """Offer ``lm-eval``, for ``[targets]``."""
    about = About(
        meaning="questions of the evaluation's tasks that are not evaluated, with right answers",
        cost="loads the data of the tasks",
    )
    return [
        Component(
            "lm-eval",
            LmEvalTargetsConfig,
            load("selectmoe_lmeval.targets:LmEvalTargets"),
            about=about,
            needs=lambda _: frozenset({Need.TASKS}),
            seeded=True,
            torch=True,
            files=_target_files,
            unseen=lambda config: _unseen(config.evaluation),
        )
    ]


@hookimpl
def selectmoe_evaluators() -> list[Component[Any, Evaluator]]:
    """Offer ``lm-eval``."""
    about = About(
        meaning="accuracy, or the task's own metric, with its standard error",
        range="accuracy 0 to 1, higher is better; chance is 1 divided by the number of choices",
        cost="a forward pass for each choice of each question",
        paper="lm-evaluation-harness: Gao et al. 2024, doi:10.5281/zenodo.12608602",
    )
    return [
        Component(
            "lm-eval",
            LmEvalConfig,
            load("selectmoe_lmeval.evaluator:LmEval"),
            about=about,
            needs=_needs,
            torch=True,
            files=_files,
            unseen=_unseen,
            questions=_asking,
        )
    ]


def _needs(config: LmEvalConfig) -> frozenset[Need]:
    needs = frozenset({Need.MODEL, Need.TASKS})
    return needs | {Need.TOKENS} if config.apply_chat_template == "training" else needs


def _asking(config: LmEvalConfig) -> LmEvalConfig:
    """Return the options that decide which questions there are, the others at their defaults."""
    return LmEvalConfig(
        tasks=config.tasks,
        include_path=config.include_path,
        allow_task_code=config.allow_task_code,
        task_data=config.task_data,
        held_back=config.held_back,
    )


def _unseen(config: LmEvalConfig) -> Iterable[str]:
    from selectmoe_lmeval.unseen import unseen

    return unseen(config)


def _target_files(config: LmEvalTargetsConfig) -> Iterable[Path]:
    return _files(config.evaluation)


def _files(config: LmEvalConfig) -> Iterable[Path]:
    from selectmoe_lmeval.task_files import deciding_files

    return deciding_files(config)

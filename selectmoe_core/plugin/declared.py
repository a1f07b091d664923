"""A job limited to what its component declares: only declared inputs enter the digest."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.config import Config
from selectmoe_core.models.models import BUNDLED
from selectmoe_core.plugin.component import Component
from selectmoe_core.plugin.protocols import Inputs, Job, Need, Withheld

OF_JOB = {
    "models": Need.MODEL,
    "chat": Need.TOKENS,
    "encoded": Need.TOKENS,
    "damages": Need.DAMAGES,
    "bundled_tasks": Need.TASKS,
}
OF_INPUTS = {
    "model": (Need.MODEL,),
    "pool": (Need.POOL,),
    "questions": (Need.QUESTIONS,),
    "scores": (Need.SCORES,),
    "targets": (Need.TARGETS,),
    "vectors": (Need.FEATURES,),
    "target_vectors": (Need.FEATURES, Need.TARGETS),
    "checkpoints": (Need.CHECKPOINTS,),
    "pairs": (Need.PAIRS,),
}
"""The fields that a component may read only if it declares the need, or both needs."""


def declared(job: Job, component: Component[Any, Any], config: Config, *, where: str = "") -> Job:
    """Return the job with only what the component may use; reading anything else raises.

    Args:
        job: the complete job.
        component: the component that gets it.
        config: its options, on which its needs may depend.
        where: the table of the recipe, for messages.

    Raises:
        PluginError: raised later by the job, when the component reads what it does not declare.
    """
    needs = component.needs(config)
    name = f"{where} {component.name}".strip()

    def withheld(field: str, need: Need) -> Withheld:
        written = f"Need.{need.name}"
        return Withheld(
            f"{name} uses job.{field} but does not declare {written}",
            f"declare it on the component: needs=lambda config: frozenset({{{written}, ...}})",
        )

    lacking: dict[str, Any] = {
        field: withheld(field, need) for field, need in OF_JOB.items() if need not in needs
    }
    if not component.seeded:
        lacking["seed"] = Withheld(
            f"{name} uses job.seed but is not declared as seeded",
            "declare it on the component: seeded=True",
        )
    if Need.TASKS in needs:
        lacking["bundled_tasks"] = NamedTasks(job.bundled_tasks, bundled_names(config), name)
    inputs = dict(vars(job.inputs)) | {
        field: withheld(f"inputs.{field}", next(need for need in wanted if need not in needs))
        for field, wanted in OF_INPUTS.items()
        if not needs.issuperset(wanted)
    }
    return job.changed(**lacking, inputs=Inputs(**inputs))


def bundled_names(config: Config) -> frozenset[str]:
    """Return the bundled tasks that options name: ``bundled:NAME`` or ``bundled:NAME/TASK``."""
    texts = [text for value in config.model_dump().values() for text in _texts(value)]
    return frozenset(
        text.removeprefix(BUNDLED).partition("/")[0] for text in texts if text.startswith(BUNDLED)
    )


class NamedTasks(Mapping[str, Path]):
    """The folders of bundled tasks: all names are known, but only those in options can be read."""

    def __init__(self, folders: Mapping[str, Path], named: frozenset[str], owner: str) -> None:
        self._folders = folders
        self._named = named
        self._owner = owner

    def __getitem__(self, name: str) -> Path:
        folder = self._folders[name]
        if name not in self._named:
            Withheld(
                f"{self._owner} uses job.bundled_tasks['{name}'], which none of its options name",
                f"read it only if an option says 'bundled:{name}'",
            ).refuse()
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


def _texts(value: Any) -> list[str]:  # noqa: ANN401
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in items if isinstance(item, str)]

"""A node of a plan as one JSON file: everything that a process needs to execute it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.models.models import ModelRef
from selectmoe_core.store import write_json

WORKER = "selectmoe_core.runner.worker"
"""The module that executes a node in a child process."""
CHECKS = "--check"
"""Its first argument where the parts of nodes shall check what they can, and no more."""
SENT = "sent"
"""The kind of progress that is sent to the main process, which shows that of several nodes."""


@dataclass(frozen=True)
class NodeSpec:
    """One node to execute.

    Attributes:
        key: the node's name in its plan.
        stage: its stage.
        where: the table of the recipe that it comes from, for messages: ``[score.ifd]``.
        kind: the kind of its component.
        component: the component's name.
        options: the component's options as JSON values.
        own: the stage's own options as JSON values.
        digest: the node's digest.
        folder: where its artifact goes.
        store: the root of the store.
        inputs: folders of the artifacts it reads, by role.
        input_digests: their digests, by role.
        model: the model it starts from: location, revision, trust_remote_code.
        seed: its seed.
        chat: the chat format's options.
        device: ``cpu`` or ``cuda``.
        dtype: what it computes in.
        threads: torch threads of each process on the CPU.
        processes: how many processes execute it together.
        disabled: plugins that are not loaded.
        progress: ``none``, ``plain``, ``rich``, or ``sent`` to the main process.
        log: the run's log file.
        events: the file through which its first process reports to the main process.
        verbose: whether informative log lines are shown.
        origin: for checks: the model from which its input model will be made.
        trained_from: for checks: the model of which its input model will be a training.
        sample: for checks: a file with a few rows of the pool.
        evaluation: for the check of targets: the evaluator, and the options that decide what it
            asks.
        mapped: whether it is made shard by shard, so that its processes need not meet.
        executor: the executor of the run.
        maker: for a mapped node whose shards another process makes: who makes them, see
            ``stages/scoring/elsewhere.py``.
        joins: it is executed by a worker, which makes shards and leaves the rest to the run.
        leaves_at: when a worker takes no further shard, in seconds since 1970.
        skips: rows that the chat format cannot render are left out; otherwise they are errors.
    """

    key: str
    stage: str
    where: str
    kind: str
    component: str
    options: Mapping[str, Any]
    own: Mapping[str, Any]
    digest: str
    folder: Path
    store: Path
    inputs: Mapping[str, Path]
    input_digests: Mapping[str, str]
    model: Mapping[str, Any] | None
    seed: int
    chat: Mapping[str, Any]
    device: str
    dtype: str
    threads: int
    processes: int = 1
    disabled: tuple[str, ...] = ()
    progress: str = "none"
    log: Path | None = None
    events: Path | None = None
    verbose: bool = False
    origin: Mapping[str, Any] | None = None
    trained_from: Mapping[str, Any] | None = None
    sample: Path | None = None
    evaluation: Mapping[str, Any] | None = None
    mapped: bool = False
    executor: str = "local"
    maker: Mapping[str, Any] | None = None
    skips: bool = False
    joins: bool = False
    leaves_at: float | None = None

    @property
    def rows_of(self) -> str:
        """The role of the input whose rows it works on: the pool, or the targets alone."""
        return "pool" if "pool" in self.inputs else "targets"

    def model_ref(self) -> ModelRef | None:
        """Return the model it starts from: made by another node, or named in the recipe."""
        if "model" in self.inputs:
            return ModelRef(str(self.inputs["model"] / "model"))
        return ModelRef(**self.model) if self.model else None

    def save(self, path: Path) -> None:
        """Write the node for the process that executes it."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "NodeSpec":
        """Read what ``save`` wrote."""
        value = json.loads(path.read_text(encoding="utf-8"))
        for name in ("folder", "store", "log", "events", "sample"):
            value[name] = Path(value[name]) if value[name] else None
        value["inputs"] = {role: Path(folder) for role, folder in value["inputs"].items()}
        value["disabled"] = tuple(value["disabled"])
        return cls(**value)

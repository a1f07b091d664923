"""What a part may know of its run: its ``Job``, filled from a node's spec."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selectmoe_core.config import Config, parse
from selectmoe_core.errors import StageError
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.declared import declared
from selectmoe_core.plugin.protocols import Inputs, Job
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.runtime.distributed import World, main_first
from selectmoe_core.runtime.events import send
from selectmoe_core.runtime.progress import Progress
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.stages.token_cache import encoded_pool
from selectmoe_core.tokens.chat import ChatFormat
from selectmoe_core.tokens.encoding import Encoded

LOG = "train_log.jsonl"


def make_job(
    work: NodeSpec, registry: Registry, world: World, chat: ChatFormat, progress: Progress
) -> Job:
    """Return all that a part may know of its run: what its component declares."""
    scores = {
        role.partition(":")[2]: folder
        for role, folder in work.inputs.items()
        if role.startswith("score:")
    }
    inputs = Inputs(
        model=work.model_ref(),
        pool=work.inputs.get("pool"),
        scores=scores,
        questions=work.inputs.get("questions"),
        targets=work.inputs.get("targets"),
        vectors=work.inputs.get("embed"),
        target_vectors=work.inputs.get("embed:targets"),
        checkpoints=_checkpoints(work),
        pairs=work.inputs.get("pairs"),
    )

    def encoded(tokenizer: Any) -> Encoded:  # noqa: ANN401
        with main_first():  # the first process makes them, the others find them
            return encoded_pool(work, chat, tokenizer, progress)

    job = Job(
        seed=work.seed,
        device=work.device,
        dtype=work.dtype,
        world=world,
        chat=chat,
        inputs=inputs,
        scratch=work.folder / "scratch",
        checkpoints=work.folder / "checkpoints",
        models=registry.models,
        progress=progress,
        metrics=_recorder(work, world),
        encoded=encoded,
        bundled_tasks=registry.bundled_tasks,
        damages=registry.damages,
    )
    entry, config = bound(work, registry)
    return declared(job, entry.component, config, where=work.where)


def bound(spec: NodeSpec, registry: Registry) -> tuple[Entry, Config]:
    """Return the component of a node and its options."""
    entry = registry.get(Kind(spec.kind), spec.component, where=spec.where)
    return entry, parse(entry.component.config, spec.options, where=spec.where)


def _checkpoints(work: NodeSpec) -> Path | None:
    """Return the folder of the warm-up's checkpoints.

    Raises:
        StageError: the warm-up is done, but somebody has removed them.
    """
    folder = work.inputs.get("checkpoints")
    if folder is None:
        return None
    if not (folder / "checkpoints").is_dir():
        raise StageError(
            f"{work.key}: the checkpoints of the warm-up in {folder} were removed",
            hint="run the warm-up again with --fresh warmup",
        )
    return folder / "checkpoints"


def _recorder(work: NodeSpec, world: World) -> Callable[[int, Mapping[str, float]], None]:
    """Return a function that appends points to the training curve, and sends them to the run."""
    path: Path = work.folder / LOG

    def record(step: int, values: Mapping[str, float]) -> None:
        if not world.main:
            return
        send(path, {"step": step, **values})
        if work.events is not None:
            send(work.events, {"step": step, "metrics": dict(values)})

    return record

"""Executing one node in this process: build the part, run its stage, write the manifest."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from selectmoe_core.config import marked
from selectmoe_core.errors import SelectMoEError, StageError, of_machine
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.remote.cache import store_at
from selectmoe_core.runner.job import bound, make_job
from selectmoe_core.runtime.distributed import World, agreed, barrier, current_world
from selectmoe_core.runtime.events import SentProgress
from selectmoe_core.runtime.processes import not_swallowed
from selectmoe_core.runtime.progress import Progress, make_progress
from selectmoe_core.stages import (
    convert,
    embedding,
    evaluate,
    filtering,
    pairs,
    pool,
    questions,
    select,
    train,
)
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.node_spec import SENT, NodeSpec
from selectmoe_core.stages.scoring import score
from selectmoe_core.stages.scoring.claims import WORKED
from selectmoe_core.store import Artifact, Facts, write_json
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat

HOW = "how.json"
"""How an unfinished artifact was begun: a resume that would mix devices or dtypes stops."""

MOST_THREADS = 4096
"""More are no record of a run, but damage."""
RECOMPUTE = "activation_checkpointing"
"""The option of trainers to keep fewer activations."""

STAGES: Mapping[str, Callable[[Context], Facts]] = {
    "pool": pool.run,
    "targets": pool.run,
    "questions": questions.run,
    "filter": filtering.run,
    "convert": convert.run,
    "pairs": pairs.run,
    "warmup": train.run,
    "embed": embedding.run,
    "score": score.run,
    "select": select.run,
    "train": train.run,
    "evaluate": evaluate.run,
}


JOINED: Mapping[str, Callable[[Context], None]] = {"embed": embedding.join, "score": score.join}
"""The stages whose shards workers can make, and how."""


def join_node(spec: NodeSpec, registry: Registry) -> None:
    """Make shards of a node beside other processes, without its lock; leave the rest to the run."""
    store = store_at(spec.store)
    with _machine_errors(spec, registry):
        if store.find(spec.stage, spec.digest) is None:
            spec.folder.mkdir(parents=True, exist_ok=True)
            _check_how(spec)
            JOINED[spec.stage](node_context(spec, registry, World()))


def execute_node(spec: NodeSpec, registry: Registry, say: Callable[[str], None]) -> None:
    """Execute a node under its lock; do nothing if another run has finished it meanwhile.

    If several processes execute it together, each of them calls this; the first one holds the
    lock and writes the manifest.
    """
    store, world = store_at(spec.store), current_world()
    lock = store.lock(spec.stage, spec.digest, say) if world.main else nullcontext()
    with not_swallowed(), _machine_errors(spec, registry), lock:
        if world.main:
            store.clear_damage(spec.stage, spec.digest)  # what was wrong has been said
        made = world.main and store.find(spec.stage, spec.digest) is not None
        if not agreed(made):
            _execute(spec, registry, world)
            if world.main:  # under the lock, so that no other run makes it meanwhile
                store.publish(spec.stage, spec.digest)


@contextmanager
def _machine_errors(spec: NodeSpec, registry: Registry) -> Iterator[None]:
    """Turn errors of a full disk, used up memory and so on into one that a user can act on."""
    try:
        yield
    except SelectMoEError:
        raise
    except Exception as error:
        doing = f"{spec.where} {spec.component}"
        refused = of_machine(error, doing, _with_less_memory(spec, registry))
        if refused is None:
            raise
        raise refused from error


def _with_less_memory(spec: NodeSpec, registry: Registry) -> str:
    """Return which options make a node need less memory and leave its result the same."""
    _, config = bound(spec, registry)
    free = marked(type(config), "execution_only")
    sizes = sorted(name for name in free if "batch" in name or name.endswith("_tokens"))
    ways = [f"lower {' or '.join(sizes)}"] if sizes else []
    if getattr(config, RECOMPUTE, None) is False:
        ways.append(f"set {RECOMPUTE} = true")
    return f"{' and '.join(ways)} in {spec.where}" if ways else ""


def _execute(spec: NodeSpec, registry: Registry, world: World) -> None:
    before = 0.0
    if world.main:
        spec.folder.mkdir(parents=True, exist_ok=True)
        before = _check_how(spec)
    barrier()
    start = time.monotonic()
    context = node_context(spec, registry, world)
    try:
        facts = STAGES[spec.stage](context)
    finally:
        # The time of an attempt counts even if it is interrupted.
        seconds = before + time.monotonic() - start
        if world.main:
            _write_how(spec, seconds)
    # What workers did counts as if these processes had done it.
    seconds += facts.get(WORKED, 0.0) / world.size
    barrier()  # the first process may be done with files that others still read
    details = {
        "key": spec.key,
        "device": spec.device,
        "dtype": spec.dtype,
        "threads": spec.threads,
        "processes": world.size,
        "executor": spec.executor,
        "options": dict(spec.options),
        "seed": spec.seed,
        "model": (spec.model or {}).get("location"),
        "inputs": dict(spec.input_digests),
        **_peak_memory(),
    }
    if world.main:
        shutil.rmtree(spec.folder / "scratch", ignore_errors=True)
        Artifact(
            spec.stage, spec.component, spec.digest, spec.folder, facts, seconds, details
        ).save(passing=(HOW,))
        (spec.folder / HOW).unlink(missing_ok=True)


def _peak_memory() -> dict[str, int]:
    """Return the peak of this process's memory and, where it used a GPU, of torch's allocations."""
    import resource

    peak = {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak["peak_gpu_bytes"] = int(torch.cuda.max_memory_allocated())
    return peak


def _check_how(spec: NodeSpec) -> float:
    """Return the seconds of earlier attempts; raise if they used another device or dtype."""
    path = spec.folder / HOW
    if store_at(spec.store).agree(path, json.dumps(_how(spec, 0.0))):
        return 0.0
    try:
        how = json.loads(path.read_bytes())
        seconds = float(how["seconds"])
    except (ValueError, KeyError, TypeError):
        raise StageError(
            f"{path} is damaged: nobody knows on which device {spec.key} was begun",
            hint=f"start it again with --fresh {spec.stage}",
        ) from None
    now = {"device": spec.device.partition(":")[0], "dtype": spec.dtype, "threads": spec.threads}
    for name, value in now.items():
        if how.get(name, value) != value and (name != "threads" or spec.device == "cpu"):
            raise StageError(
                f"{spec.key} was begun with {name} {how[name]} and cannot go on with {value}: "
                "its result would be a mixture",
                hint=f"run it with --{name} {how[name]}, or start again with --fresh {spec.stage}",
            )
    return seconds


def begun_threads(folder: Path) -> int | None:
    """Return the CPU threads that an unfinished artifact was begun with, where that is known."""
    try:
        found = int(json.loads((folder / HOW).read_bytes())["threads"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if 1 <= found <= MOST_THREADS else None


def _how(spec: NodeSpec, seconds: float) -> dict[str, Any]:
    return {
        "device": spec.device.partition(":")[0],
        "dtype": spec.dtype,
        "threads": spec.threads,
        "seconds": seconds,
    }


def _write_how(spec: NodeSpec, seconds: float) -> None:
    write_json(spec.folder / HOW, _how(spec, seconds))


def _progress(spec: NodeSpec, world: World) -> Progress:
    if spec.progress == SENT and spec.events is not None and world.main:
        return SentProgress(spec.events)
    return make_progress(spec.progress if world.main and spec.progress != SENT else "none")


def node_context(spec: NodeSpec, registry: Registry, world: World) -> Context:
    """Build the part of a node, and return what its stage receives."""
    entry, config = bound(spec, registry)
    progress = _progress(spec, world)
    chat = ChatFormat.load(ChatConfig.model_validate(spec.chat), skips=spec.skips)
    return Context(
        part=entry.build(config, where=spec.where),
        component=entry.component,
        config=config,
        spec=spec,
        job=make_job(spec, registry, world, chat, progress),
    )

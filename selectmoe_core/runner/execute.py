"""Carrying out one node, in this process: build the part, run its stage, write the manifest."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from selectmoe_core.config import parse
from selectmoe_core.errors import SelectMoEError, StageError, of_disk
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.job import make_job
from selectmoe_core.runtime.distributed import World, agreed, barrier, current_world
from selectmoe_core.runtime.progress import make_progress
from selectmoe_core.stages import convert, evaluate, pool, select, train
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.job_spec import Work
from selectmoe_core.stages.scoring import score
from selectmoe_core.store import Artifact, Facts, Store, write_json
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat

HOW = "how.json"
"""How an unfinished artifact was begun: a resume that would mix devices or dtypes stops."""

STAGES: Mapping[str, Callable[[Context], Facts]] = {
    "pool": pool.run,
    "convert": convert.run,
    "warmup": train.run,
    "score": score.run,
    "select": select.run,
    "train": train.run,
    "evaluate": evaluate.run,
}


def perform(work: Work, registry: Registry, say: Callable[[str], None]) -> Artifact:
    """Carry out a node under its lock, or return what another run made meanwhile.

    Where several processes carry it out together, this is for the first of them.
    """
    store = Store(work.store)
    with _disk_errors(work), store.lock(work.stage, work.digest, say):
        found = store.find(work.stage, work.digest)
        if agreed(found is not None):
            assert found is not None
            return found
        return _perform(work, registry, current_world())


def assist(work: Work, registry: Registry) -> None:
    """Take part in what the first process carries out; the result is the first process's."""
    with _disk_errors(work):
        if not agreed(of_main=False):
            _perform(work, registry, current_world())


@contextmanager
def _disk_errors(work: Work) -> Iterator[None]:
    """Turn what a full disk or missing permissions cause into an error a user can act on."""
    try:
        yield
    except SelectMoEError:
        raise
    except Exception as error:
        told = of_disk(error, f"[{work.stage}] {work.component}")
        if told is None:
            raise
        raise told from error


def _perform(work: Work, registry: Registry, world: World) -> Artifact:
    before = 0.0
    if world.main:
        work.folder.mkdir(parents=True, exist_ok=True)
        before = _check_how(work)
    barrier()
    start = time.monotonic()
    context = _context(work, registry, world)
    try:
        facts = STAGES[work.stage](context)
    finally:
        # What an attempt took counts even where it is interrupted.
        seconds = before + time.monotonic() - start
        if world.main:
            _write_how(work, seconds)
    barrier()  # the first process may be done with what others still read
    details = {
        "key": work.key,
        "device": work.device,
        "dtype": work.dtype,
        "threads": work.threads,
        "processes": world.size,
        "options": dict(work.options),
        "seed": work.seed,
        "model": (work.model or {}).get("location"),
        "inputs": dict(work.input_digests),
        **_peak_memory(),
    }
    artifact = Artifact(
        work.stage, work.component, work.digest, work.folder, facts, seconds, details
    )
    if world.main:
        shutil.rmtree(work.folder / "scratch", ignore_errors=True)
        artifact.save()
        (work.folder / HOW).unlink(missing_ok=True)
    return artifact


def _peak_memory() -> dict[str, int]:
    """Return the peak of this process's memory and, where it used a GPU, of torch's allocations."""
    import resource

    peak = {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak["peak_gpu_bytes"] = int(torch.cuda.max_memory_allocated())
    return peak


def _check_how(work: Work) -> float:
    """Return the seconds of earlier attempts; stop where they computed on something else."""
    path = work.folder / HOW
    if not path.is_file():
        _write_how(work, 0.0)
        return 0.0
    how = json.loads(path.read_text(encoding="utf-8"))
    now = {"device": work.device.partition(":")[0], "dtype": work.dtype, "threads": work.threads}
    for name, value in now.items():
        if how.get(name, value) != value and (name != "threads" or work.device == "cpu"):
            raise StageError(
                f"{work.key} was begun with {name} {how[name]} and cannot go on with {value}: "
                "its result would be a mixture",
                hint=f"go on as it was begun, or start it anew with --fresh {work.stage}",
            )
    return float(how.get("seconds", 0.0))


def _write_how(work: Work, seconds: float) -> None:
    how = {
        "device": work.device.partition(":")[0],
        "dtype": work.dtype,
        "threads": work.threads,
        "seconds": seconds,
    }
    write_json(work.folder / HOW, how)


def _context(work: Work, registry: Registry, world: World) -> Context:
    entry = registry.get(Kind(work.kind), work.component, where=f"[{work.stage}]")
    config = parse(entry.component.config, work.options, where=f"[{work.stage}]")
    progress = make_progress(work.progress if world.main else "none")
    chat = ChatFormat.load(ChatConfig.model_validate(work.chat))
    return Context(
        part=entry.component.build(config),
        component=entry.component,
        config=config,
        work=work,
        job=make_job(work, registry, world, chat, progress),
    )

"""Checkpoints of a training run: when they are made, which are kept, and how to resume."""

import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.constants import FSDP_MODEL_NAME
from transformers import TrainerCallback

from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.runtime.distributed import agreed, barrier
from selectmoe_core.store import write_json
from selectmoe_core.training.checkpoint_files import COMPLETE, NAME, checkpoint_files, is_whole

log = logging.getLogger("selectmoe.training")

CIRCUMSTANCES = "circumstances.json"
"""File next to the checkpoints: their kind of device, dtype and number of threads."""


class Checkpoints(TrainerCallback):
    """Requests checkpoints, marks each one as complete, and removes those that are not needed.

    One is made after ``seconds``, after every ``keep_every`` steps, and after the last step.

    Args:
        seconds: the most time that a killed run loses.
        keep_every: steps between checkpoints that are kept; of the others only the newest is kept.
    """

    def __init__(self, seconds: float, keep_every: int | None = None) -> None:
        self.seconds = seconds
        self.keep_every = keep_every
        self.last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock."""
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Check the clock; the first process decides for all."""
        step = state.global_step
        due = agreed(time.monotonic() - self.last >= self.seconds)
        if due or step >= state.max_steps:
            control.should_save = True
            self.last = time.monotonic()
        if self._keeps(step):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Mark the new checkpoint after every process has written its part."""
        barrier()  # each process saves its random state
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        # Trainer's own pickle of the weights, under FSDP; they are also there as safetensors.
        (folder / f"{FSDP_MODEL_NAME}.bin").unlink(missing_ok=True)
        files = checkpoint_files(folder)
        write_json(folder / COMPLETE, {"step": state.global_step, "files": files})
        for old in complete_checkpoints(folder.parent):
            if old != folder and not self._keeps(step_of(old)):
                # First, because an incomplete checkpoint must not count as complete.
                (old / COMPLETE).unlink()
                shutil.rmtree(old, ignore_errors=True)

    def _keeps(self, step: int) -> bool:
        return self.keep_every is not None and step % self.keep_every == 0


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    found = (path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}"))
    return sorted((path for path in found if NAME.fullmatch(path.name)), key=step_of)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or ``None``."""
    if _recorded(folder) is None:
        return None
    return next(filter(is_whole, reversed(complete_checkpoints(folder))), None)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was made."""
    return int(checkpoint.name.rpartition("-")[2])


def remove_broken_checkpoints(folder: Path) -> None:
    """Remove incomplete checkpoints of a killed run, and damaged ones."""
    usable = _recorded(folder) is not None
    for path in sorted(folder.glob("checkpoint-*")):
        complete = (path / COMPLETE).is_file()
        if complete and usable and is_whole(path):
            continue
        if complete:
            why = "is damaged" if usable else f"has no {CIRCUMSTANCES}"
            text = f"{path} {why}: it is not used, and training continues from an earlier point"
            log.warning("%s", text)
            print(f"  Warning: {text}", file=sys.stderr)  # noqa: T201
            (path / COMPLETE).unlink()
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def repeatable(job: Job, stage: str) -> Iterator[Path | None]:
    """Make training repeatable, and yield the checkpoint to resume from, if there is one.

    On the CPU a repeated run is equal to the last bit, also after a resume: algorithms are
    deterministic, and a resumed run uses the recorded number of threads, on which sums depend.

    Raises:
        StageError: the checkpoints were made on another kind of device or in another dtype.
    """
    if job.world.main:
        job.checkpoints.mkdir(parents=True, exist_ok=True)
        remove_broken_checkpoints(job.checkpoints)
    checkpoint = last_checkpoint(job.checkpoints)
    cpu = job.device == "cpu"
    threads = torch.get_num_threads()
    recorded = _circumstances(job, stage, threads, resumed=checkpoint is not None)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        if cpu:
            torch.set_num_threads(recorded)
            torch.use_deterministic_algorithms(True)
        yield checkpoint
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def _circumstances(job: Job, stage: str, threads: int, *, resumed: bool) -> int:
    path = job.checkpoints / CIRCUMSTANCES
    now = {"device": job.device.partition(":")[0], "dtype": job.dtype}
    if not resumed:
        if job.world.main:
            write_json(path, now | {"threads": threads})
        return threads
    then = _recorded(job.checkpoints)
    assert then is not None  # otherwise there would be no checkpoint to resume from
    recorded = int(then.pop("threads"))
    if then != now:
        raise StageError(
            f"{job.checkpoints}: these checkpoints were made with {then}, this run has {now}",
            hint=f"run it as before, or rerun the stage with --fresh {stage}",
        )
    return recorded


def _recorded(folder: Path) -> dict[str, Any] | None:
    """Return what the checkpoints of a folder were made with, or ``None`` if that is unknown."""
    try:
        found = json.loads((folder / CIRCUMSTANCES).read_text(encoding="utf-8"))
        return found if int(found["threads"]) > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""What trainers on transformers' Trainer share: repeatability, checkpoints, progress, the loss.

Imports torch and transformers: only a part that trains imports this module.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.store import write_json

COMPLETE = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is half written."""
CIRCUMSTANCES = "circumstances.json"
"""Beside the checkpoints: the kind of device, the dtype and the threads they were made with."""


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or ``None``."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=_step, default=None)


def finish_checkpoint(folder: Path, *, keep: int = 1) -> None:
    """Mark a checkpoint as complete, then remove all but the newest ``keep``."""
    write_json(folder / COMPLETE, {"step": _step(folder)})
    complete = sorted((path.parent for path in folder.parent.glob(f"*/{COMPLETE}")), key=_step)
    for old in complete[:-keep]:
        (old / COMPLETE).unlink()  # first: half a checkpoint must not count as whole
        shutil.rmtree(old, ignore_errors=True)


def remove_broken_checkpoints(folder: Path) -> None:
    """Remove what a killed run left half written or half removed."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def repeatable(job: Job, stage: str) -> Iterator[Path | None]:
    """Make training repeat, and yield the checkpoint to go on from, if there is one.

    On the CPU a repeat is equal to the last bit, also when it is resumed: algorithms are
    deterministic, and a resumed run takes the recorded number of threads, on which sums depend.

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


class TrainingOptions(Protocol):
    """The options that every trainer's configuration has, and calls the same."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of AdamW."""
        ...

    @property
    def epochs(self) -> float:
        """Passes over the examples."""
        ...

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps after which to stop."""
        ...

    @property
    def scheduler(self) -> str:
        """How the learning rate goes on after its rise."""
        ...

    @property
    def warmup_ratio(self) -> float:
        """Share of the steps in which the learning rate rises."""
        ...

    @property
    def weight_decay(self) -> float:
        """Weight decay of AdamW."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """The norm that gradients are clipped to."""
        ...

    @property
    def activation_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        ...


def checkpointing(*, on: bool) -> dict[str, Any]:
    """Return the fields of ``TrainingArguments`` that say whether activations are recomputed."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    # transformers 5.23 renamed the option; both names are in use among the supported releases.
    option = "activation" if "activation_checkpointing" in names else "gradient"
    return {
        f"{option}_checkpointing": on,
        f"{option}_checkpointing_kwargs": {"use_reentrant": False},
    }


def training_arguments(
    job: Job,
    config: TrainingOptions,
    *,
    recomputes: bool = False,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return ``TrainingArguments`` that are quiet, seeded, on the job's device, and never guess.

    Args:
        job: what the trainer knows of its run.
        config: its options.
        recomputes: whether the model itself sees to ``activation_checkpointing``.
        options: further fields of ``TrainingArguments``.
    """
    cpu = job.device == "cpu"
    arguments = TrainingArguments(
        output_dir=str(job.checkpoints),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        warmup_steps=config.warmup_ratio,
        lr_scheduler_type=config.scheduler,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch" if cpu else "adamw_torch_fused",
        use_cpu=cpu,
        seed=job.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean of the steps before
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        ddp_find_unused_parameters=False,
        **checkpointing(on=config.activation_checkpointing and not recomputes),
        **options,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001  (else one process would replicate the model on all GPUs)
    return arguments


def record_step(trainer: Trainer, job: Job, logs: Mapping[str, float]) -> None:
    """Pass the figures of a step on to the job.

    Raises:
        StageError: one of them is not finite.
    """
    step = trainer.state.global_step
    if not all(map(math.isfinite, logs.values())):
        raise StageError(
            f"the loss or its gradient is not finite at step {step}",
            hint="lower the learning rate, or train in float32",
        )
    if job.world.main:
        job.metrics(step, dict(logs))


def attach(trainer: Trainer, job: Job, label: str, *, checkpoint_minutes: float) -> None:
    """Give a trainer the job's bar and a clock for checkpoints; take what prints to stdout."""
    trainer.remove_callback(PrinterCallback)
    if job.world.main:
        trainer.add_callback(StepBar(job, label))
    trainer.add_callback(CheckpointClock(checkpoint_minutes * 60, job.world.size))


def train(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train from the checkpoint on, or from the start.

    A checkpoint of the last step is only loaded: given one, ``Trainer.train`` would take another
    step where the last step does not end an epoch.
    """
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step >= state.max_steps:
            trainer._load_from_checkpoint(str(checkpoint))  # noqa: SLF001
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


class StepBar(TrainerCallback):
    """Shows optimizer steps as progress."""

    def __init__(self, job: Job, label: str) -> None:
        self.job = job
        self.label = label
        self.bar: Any = None
        self.advance: Advance = lambda _: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Open the bar."""
        self.bar = self.job.progress.task(self.label, state.max_steps, "steps", state.global_step)
        self.advance = self.bar.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Move it."""
        self.advance(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Close it."""
        self.bar.__exit__(None, None, None)


class CheckpointClock(TrainerCallback):
    """Asks for a checkpoint when so many seconds passed since the last, and after the last step."""

    def __init__(self, seconds: float, processes: int) -> None:
        self.seconds = seconds
        self.processes = processes
        self.last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock."""
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Look at the clock; the first process's decides for all."""
        due = time.monotonic() - self.last >= self.seconds
        if self.processes > 1:
            from accelerate.utils import broadcast_object_list

            due = bool(broadcast_object_list([due])[0])
        if due or state.global_step >= state.max_steps:
            control.should_save = True
            self.last = time.monotonic()


def _circumstances(job: Job, stage: str, threads: int, *, resumed: bool) -> int:
    path = job.checkpoints / CIRCUMSTANCES
    now = {"device": job.device.partition(":")[0], "dtype": job.dtype}
    if not resumed:
        if job.world.main:
            write_json(path, now | {"threads": threads})
        return threads
    then = json.loads(path.read_text(encoding="utf-8"))
    recorded = int(then.pop("threads"))
    if then != now:
        raise StageError(
            f"{job.checkpoints}: these checkpoints were made with {then}, this run has {now}",
            hint=f"run it as before, or start the stage afresh (--fresh {stage})",
        )
    return recorded


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])

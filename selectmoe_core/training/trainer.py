"""The trainer that warm-up and LoRA share: optimizer steps of several passes, and resuming.

It imports torch and transformers, so only a part that trains imports this module.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState

from selectmoe_core.errors import StageError
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.training.checkpoints import Checkpoints
from selectmoe_core.training.losses import CountedRows


class StepTrainer(Trainer):
    """transformers' Trainer, with a process's share of an optimizer step as its batch.

    The collator makes a batch of that share: a mapping of ``passes``, the inputs of each forward
    pass, and ``totals``, fp32 ``[2 or more]``: the tokens of its examples, the sum of their loss
    weights, and what else a loss is divided by. A pass's loss is divided by the totals over all
    passes and all processes, so the gradient does not depend on the number of passes or
    processes. Trainer's own ``gradient_accumulation_steps`` stays 1.

    A subclass defines the loss of a pass (``pass_loss``), and how to save and load the weights.

    Args:
        sampler: the order of examples; its batches are the shares of the processes in turn.
        job: what the trainer knows about its run.
        label: the name on the progress bar.
        checkpoint_minutes: the most time that a killed run loses.
        keep_every: steps between checkpoints that are kept.
        options: arguments of ``Trainer``.

    Attributes:
        totals: the totals of the current step over all processes.
    """

    def __init__(
        self,
        *,
        sampler: Sampler[Any],
        job: Job,
        label: str,
        checkpoint_minutes: float,
        keep_every: int | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        self.sampler = sampler
        self.job = job
        self.totals = torch.ones(())
        self._tokens = torch.zeros((), dtype=torch.float64)
        self._seconds = 0.0
        self._logged: list[tuple[float, Tensor]] = []
        self.remove_callback(PrinterCallback)  # stdout is for results
        if job.world.main:
            self.add_callback(StepBar(job, label))
        self.add_callback(Checkpoints(checkpoint_minutes * 60, keep_every))

    # --------------------------------------------------------------- what a subclass defines

    def pass_loss(self, model: nn.Module, inputs: Any) -> Tensor:  # noqa: ANN401
        """Return a pass's share of the step's loss, a scalar."""
        raise NotImplementedError

    def save_weights(self, folder: Path, whole: Mapping[str, Tensor] | None) -> None:
        """Write the trained weights; one process calls this.

        Args:
            folder: the folder to write to.
            whole: all weights by name, if they are split among processes (FSDP).
        """
        raise NotImplementedError

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Copy the weights that ``save_weights`` wrote into the model."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Return what is logged for a step besides the loss; every process calls this."""
        return {}

    # ------------------------------------------------------------------------------- a step

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the shares, in the order of the sampler, on the device."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """Fetch a step's share and add up the totals of all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            totals = batch["totals"].to(device, non_blocking=True)
            self.totals = self.accelerator.reduce(totals, reduction="sum")
            self._tokens = self._tokens.to(device) + self.totals[0]
        return batches, None

    def training_step(
        self,
        model: nn.Module,
        inputs: Any,  # noqa: ANN401
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Run the passes of a step forward and backward; return their loss."""
        model.train()
        passes = inputs["passes"]
        losses = []
        for number, batch in enumerate(passes, start=1):
            # Processes exchange gradients once per step, in the backward pass of the last.
            alone = number < len(passes)
            with self.accelerator.no_sync(model) if alone else nullcontext():
                loss = self.compute_loss(model, batch)
                self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,  # noqa: ANN401
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        """Return a pass's share of the step's loss, scaled for data-parallel training."""
        # It averages the gradients of the processes, but their shares must be summed.
        loss = self.pass_loss(model, inputs) * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the figures of a step to the job."""
        if "loss" in logs:
            logs.update(self.figures())
            self._record(logs)
            # The first and the latest step: when it was logged, and the tokens until then.
            self._logged = [*self._logged[:1], (time.monotonic(), self._tokens)]
        super().log(logs, start_time)

    def _record(self, logs: Mapping[str, float]) -> None:
        step = self.state.global_step
        if not all(map(math.isfinite, logs.values())):
            raise StageError(
                f"the loss or its gradient is not finite at step {step}",
                hint="lower the learning rate, or train in float32",
            )
        if self.job.world.main:
            self.job.metrics(step, dict(logs))

    # -------------------------------------------------------------------------- checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained weights; every process must call this."""
        whole = self.whole_weights()
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.save_weights(folder, whole)

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Return all weights if they are split (FSDP); every process must call this.

        The first process gets them; the others may get nothing.
        """
        if not self.is_fsdp_enabled:
            return None
        found: dict[str, Tensor] = self.accelerator.get_state_dict(self.model)
        return found

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        # Private, for want of a public hook: ``Trainer.train`` loads weights through this method
        # alone, and the original refuses a checkpoint that holds neither a whole model nor PEFT's.
        self.load_weights(self.model if model is None else model, Path(resume_from_checkpoint))

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the checkpoint, or from the start.

        A checkpoint of the last step is only loaded: given one, ``train`` would take another step
        if the last step does not end an epoch.
        """
        start = time.monotonic()
        if checkpoint is None:
            self.train()
        elif (state := _state(checkpoint)).global_step < state.max_steps:
            self.train(resume_from_checkpoint=str(checkpoint))
        else:
            self.load_weights(self.model, checkpoint)
            self.state = state
        self._seconds = time.monotonic() - start

    # -------------------------------------------------------------------------------- facts

    @property
    def trained_tokens(self) -> int:
        """Tokens of examples trained on since the start or the resume, over all processes."""
        return int(self._tokens)

    def facts(self, rows: CountedRows, examples: int) -> dict[str, Any]:
        """Return the facts of a training: steps, examples, tokens, time, memory.

        Args:
            rows: the examples that were trained on.
            examples: how many there were, including those in which no token counts.
        """
        facts: dict[str, Any] = {
            "steps": self.state.global_step,
            "epochs": round(float(self.state.epoch or 0.0), 4),
            "examples": len(rows),
            "examples_without_a_counted_token": examples - len(rows),
            "tokens": int(rows.lengths.sum()),
            "trainable_parameters": self.get_num_trainable_parameters(),
            "seconds": round(self._seconds, 3),
            "tokens_per_second": round(self.trained_tokens / max(self._seconds, 1e-9), 1),
            "threads": torch.get_num_threads(),
        }
        if len(self._logged) > 1:
            # Without the first step, which compiles kernels, and what comes after the last.
            (begin, before), (end, after) = self._logged
            rate = (float(after) - float(before)) / max(end - begin, 1e-9)
            facts["steady_tokens_per_second"] = round(rate, 1)
        if self.args.device.type == "cuda":
            facts["peak_memory"] = torch.cuda.max_memory_allocated(self.args.device)
        return facts

    @property
    def logged_steps(self) -> list[Mapping[str, float]]:
        """The log of each step, including those before a resume."""
        return [entry for entry in self.state.log_history if "loss" in entry]


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
        """Move the bar."""
        self.advance(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Close the bar."""
        self.bar.__exit__(None, None, None)


def _state(checkpoint: Path) -> TrainerState:
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state

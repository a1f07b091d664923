"""The trainer that warm-up and LoRA share: optimizer steps of several passes, and their resume.

Imports torch and transformers: only a part that trains imports this module.
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
    """transformers' Trainer, whose batch is a process's share of a whole optimizer step.

    The collator makes a batch of that share: a mapping of ``passes``, the inputs of each forward
    pass, and ``totals``, fp32 ``[2 or more]``: the tokens of its examples, the sum of their loss
    weights, and what else a loss is divided by. A pass's loss is divided by the totals over all
    passes and all processes, so neither the number of passes nor that of processes scales a
    gradient. Nothing of that is left to Trainer: its ``gradient_accumulation_steps`` stay 1.

    A subclass says what a pass loses (``pass_loss``), and how it saves and loads what it trains.

    Args:
        sampler: the order of examples; its batches are the shares of the processes in turn.
        job: what the trainer knows of its run.
        label: the name on the progress bar.
        checkpoint_minutes: the most that a killed run loses.
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
        self.remove_callback(PrinterCallback)  # stdout is for results
        if job.world.main:
            self.add_callback(StepBar(job, label))
        self.add_callback(Checkpoints(checkpoint_minutes * 60, keep_every))

    # ------------------------------------------------------------------ what a subclass says

    def pass_loss(self, model: nn.Module, inputs: Any) -> Tensor:  # noqa: ANN401
        """Return a pass's share of the step's loss, a scalar."""
        raise NotImplementedError

    def save_weights(self, folder: Path, whole: Mapping[str, Tensor] | None) -> None:
        """Write what is trained; one process calls this.

        Args:
            folder: where.
            whole: all weights by name, where processes share each out (FSDP).
        """
        raise NotImplementedError

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Copy what ``save_weights`` wrote into the model."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Return what is logged of a step beside the loss; every process calls this."""
        return {}

    # ------------------------------------------------------------------------------- a step

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the shares, in the sampler's order, on the device."""
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
            # Processes exchange gradients once a step, in the backward pass of the last.
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
        """Return a pass's share of the step's loss, as data-parallel training wants it."""
        # It averages the gradients of the processes; their shares are to be summed.
        loss = self.pass_loss(model, inputs) * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the figures of a step on to the job."""
        if "loss" in logs:
            logs.update(self.figures())
            self._record(logs)
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
        """Write what is trained; every process must call this."""
        whole = self.whole_weights()
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.save_weights(folder, whole)

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Return all weights, where processes share each out (FSDP); every process must call this.

        The first process gets them; the others may get none.
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
        """Train from the checkpoint on, or from the start.

        A checkpoint of the last step is only loaded: given one, ``train`` would take another step
        where the last step does not end an epoch.
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
        """Return what is reported of any training: steps, examples, tokens, time, memory.

        Args:
            rows: what was trained on.
            examples: how many there were with those in which no token counts.
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
        if self.args.device.type == "cuda":
            facts["peak_memory"] = torch.cuda.max_memory_allocated(self.args.device)
        return facts

    @property
    def logged_steps(self) -> list[Mapping[str, float]]:
        """What was logged of each step, also of those before a resume."""
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
        """Move it."""
        self.advance(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Close it."""
        self.bar.__exit__(None, None, None)


def _state(checkpoint: Path) -> TrainerState:
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state

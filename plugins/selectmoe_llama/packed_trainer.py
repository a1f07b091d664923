"""transformers' Trainer with a loss that is normalised over the whole optimizer step."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer

from selectmoe_core import Job
from selectmoe_core.training import finish_checkpoint, record_step
from selectmoe_llama.adapter import load_adapter, save_adapter
from selectmoe_llama.batches import StepSampler
from selectmoe_llama.packed_model import PackedModel


class PackedTrainer(Trainer):
    """Trains the additions; checkpoints hold only them, in PEFT's layout.

    A batch is a process's share of an optimizer step, cut into passes: as many as its tokens need,
    the same number in all processes. The loss is the weighted sum over the step's targets divided
    by the step's total weight, counted over all passes and all processes. So with weight 1 a token,
    every counted token of a step weighs the same; with weight 1 an example, every example does.
    """

    def __init__(self, *, sampler: StepSampler, job: Job, **kw: Any) -> None:  # noqa: ANN401
        super().__init__(**kw)
        self.model_accepts_loss_kwargs = True  # the loss below is normalised already
        self.packed: PackedModel = self.model
        self.sampler = sampler
        self.job = job
        self._weight = torch.ones(())
        self._tokens = torch.zeros((), device=self.args.device)

    @property
    def trained_tokens(self) -> int:
        """Tokens of examples passed through the model since ``train`` was called, all processes."""
        return int(self._tokens)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """Fetch a step's passes and add up their weights."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        (batch,) = batches
        totals = batch["totals"].to(device, non_blocking=True)
        self._weight, tokens = self.accelerator.reduce(totals, reduction="sum")
        self._tokens = self._tokens + tokens
        return batches, self._weight

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Run the passes of a step forward and backward; return their loss."""
        model.train()
        passes = self._prepare_inputs(inputs)["passes"]
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
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        """Return a pass's share of the step's loss."""
        # Data-parallel training averages the gradients; the shares are to be summed.
        loss = model(**inputs) * (self.accelerator.num_processes / self._weight)
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the figures of a step on to the job."""
        if "loss" in logs:
            record_step(self, self.job, logs)
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:  # noqa: ANN401, ARG002
        return self.sampler

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ANN401, ARG002
        assert output_dir is not None
        save_adapter(self.accelerator.unwrap_model(self.model).network, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        loaded = self.model if model is None else model
        load_adapter(loaded.network, Path(resume_from_checkpoint))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()  # each process saves its random state
        if self.args.should_save:
            finish_checkpoint(self.job.checkpoints / f"checkpoint-{self.state.global_step}")

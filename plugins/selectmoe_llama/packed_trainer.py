"""transformers' Trainer with a loss that is normalised over the whole optimizer step."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer

from selectmoe_core.protocols import Job
from selectmoe_core.training import finish_checkpoint, record_step, summed_cross_entropy
from selectmoe_llama.adapter import load_adapter, save_adapter
from selectmoe_llama.batches import StepSampler


class PackedTrainer(Trainer):
    """Trains the additions; checkpoints hold only them, in PEFT's layout.

    The loss is the weighted sum over the step's targets divided by the step's total weight, counted
    over all accumulated passes and all processes. So with weight 1 a token, every counted token of
    a step weighs the same; with weight 1 an example, every example does.

    Attributes:
        trained_tokens: tokens passed through the model since ``train`` was called, all processes.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *, sampler: StepSampler, job: Job, **kw: Any) -> None:  # noqa: ANN401
        super().__init__(**kw)
        self.model_accepts_loss_kwargs = True  # the loss below is normalised already
        self.sampler = sampler
        self.job = job
        self.trained_tokens = 0
        self._weight = torch.ones(())
        self._slices_logits = _slices_logits(self.model)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """Fetch the passes of a step and add up their weights."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        counts = [torch.stack([b["loss_weights"].sum(), b.pop("tokens").float()]) for b in batches]
        total = torch.stack(counts).sum(dim=0).to(device)
        total = self.accelerator.reduce(total, reduction="sum")
        self._weight = total[0]
        self.trained_tokens += int(total[1])
        return batches, self._weight

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        """Return this pass's share of the step's loss."""
        weights = inputs.pop("loss_weights")[:, 1:]
        targets = inputs["input_ids"][:, 1:]
        # The head is computed only where some row has a target to predict.
        kept = (weights > 0).any(dim=0).nonzero().squeeze(1)
        kept = kept if len(kept) else kept.new_zeros(1)
        if self._slices_logits:
            outputs = model(**inputs, use_cache=False, logits_to_keep=kept)
            logits = outputs.logits
        else:
            outputs = model(**inputs, use_cache=False)
            logits = outputs.logits[:, kept]
        loss = summed_cross_entropy(logits, targets[:, kept], weights[:, kept]) / self._weight
        # Data-parallel training averages the gradients; the shares are to be summed.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the figures of a step on to the job."""
        if "loss" in logs:
            record_step(self, self.job, logs)
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ANN401, ARG002
        return self.sampler

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ANN401, ARG002
        assert output_dir is not None
        save_adapter(self.accelerator.unwrap_model(self.model), Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        load_adapter(self.model if model is None else model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()  # each process saves its random state
        if self.args.should_save:
            finish_checkpoint(self.job.checkpoints / f"checkpoint-{self.state.global_step}")


def _slices_logits(model: Any) -> bool:  # noqa: ANN401
    return "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters

"""transformers' Trainer with the loss of Select-MoE, normalised over the whole optimizer step."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.constants import FSDP_MODEL_NAME
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import Sampler
from transformers import Trainer

from selectmoe_core import Job, ModelRef, StageError
from selectmoe_core.models import PARTIAL_WEIGHTS, save_partial
from selectmoe_core.training import COMPLETE, finish_checkpoint, record_step, summed_cross_entropy
from selectmoe_olmoe.fused.training_pass import PackedOutput
from selectmoe_olmoe.model.losses import (
    BalanceOver,
    balance_loss,
    constraint_per_token,
    trash_share,
)
from selectmoe_olmoe.warmup.batches import Split, TrainingRows
from selectmoe_olmoe.warmup.packed_losses import balance_sum, constraint_sum, trash_sum
from selectmoe_olmoe.warmup.packed_rows import Packed, merged
from selectmoe_olmoe.warmup.pairs import TwinRows


@dataclass(frozen=True)
class Terms:
    """The weights and shapes of the training loss."""

    num_experts: int
    top_k: int
    balance_weight: float
    balance_over: BalanceOver
    constraint_weight: float
    alpha: float
    beta: float
    lm_weight: float = 1.0


class WarmupTrainer(Trainer):
    """Trains whatever requires a gradient; checkpoints hold only that, in fp32.

    Each term is divided by its count over the whole optimizer step: all micro-batches, all
    processes. So neither gradient accumulation nor the number of processes scales the auxiliary
    gradient. (The balance loss is no sum over tokens; its micro-batches are weighted by tokens.)

    With ``pass_tokens`` its batches are packed (``packed_rows``) and the model's
    ``packed_training`` reads them: micro-batches join into passes of up to so many tokens.
    """

    loss_is_scaled_for_ga = True
    train_dataset: TrainingRows | TwinRows

    def __init__(
        self,
        *,
        terms: Terms,
        base: ModelRef,
        job: Job,
        statistics: bool,
        keep_every: int | None,
        kernel: str,
        split: Split,
        pass_tokens: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # the loss below is normalised already
        self.terms = terms
        self.base = base
        self.job = job
        self.statistics = statistics
        self.keep_every = keep_every
        self.kernel = kernel
        self.split = split
        self.pass_tokens = pass_tokens
        self._trained_tokens = torch.zeros((), dtype=torch.float64)
        self._totals = torch.ones(2)
        self._sums: dict[str, Tensor] = {}

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """Fetch the micro-batches of a step and count their tokens and loss weights."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        passes = batches if self.pass_tokens is None else merged(batches, self.pass_tokens)
        total = torch.stack([self.counts(batch) for batch in passes]).sum(dim=0).to(device)
        self._totals = self.accelerator.reduce(total, reduction="sum")
        self._trained_tokens = self._trained_tokens.to(device) + self._totals[0]
        # Trainer counts micro-batches: the place of one that went into a later pass stays empty.
        return [{}] * (len(batches) - len(passes)) + passes, self._totals[1]

    @property
    def trained_tokens(self) -> int:
        """Real tokens trained on since the start or the resumption, over all processes."""
        return int(self._trained_tokens)

    def counts(self, batch: Packed) -> Tensor:
        """Return what the terms of a micro-batch are divided by the sums of: tokens first."""
        if self.pass_tokens is not None:
            return torch.stack([batch["micro"].sum(), batch["label_weights"].sum()])
        return torch.stack([batch["attention_mask"].sum().float(), batch["loss_weights"].sum()])

    def training_step(
        self,
        model: nn.Module,
        inputs: Packed,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Train on a pass; an empty place in the list of micro-batches costs nothing."""
        if not inputs:
            return torch.zeros((), device=self.args.device)
        found: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return found

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        """Return this micro-batch's share of the step's loss."""
        if self.pass_tokens is not None:
            outputs = model(packed=inputs)
            loss = self.packed_objective(outputs, inputs)
        else:
            # Right padding under causal attention needs no mask, and none is the faster kernel.
            outputs = model(
                input_ids=inputs["input_ids"], output_router_logits=True, use_cache=False
            )
            loss = self.objective(outputs.logits, outputs.router_logits, inputs)
        # Data-parallel training averages the gradients; the parts above are to be summed.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def objective(
        self, vocabulary: Tensor, logits: tuple[Tensor, ...], inputs: dict[str, Tensor]
    ) -> Tensor:
        """Return the sum of the loss terms, and note each.

        Args:
            vocabulary: the model's logits, ``[batch, length, vocabulary]``.
            logits: the router logits of each layer, ``[batch * length, experts + trash]``.
            inputs: the batch.
        """
        terms = self.terms
        mask = inputs["attention_mask"].reshape(-1).float()
        tokens, targets = self._totals[:2]
        weights, next_ids = inputs["loss_weights"][:, 1:], inputs["input_ids"][:, 1:]
        cross_entropy = summed_cross_entropy(vocabulary[:, :-1], next_ids, weights) / targets
        taxes = constraint_per_token(
            logits, terms.num_experts, terms.top_k, terms.alpha, terms.beta
        )
        constraint = (taxes * mask).sum() / tokens
        share = mask.sum() / tokens
        gather = self._gather()
        batch = mask.sum() if gather is None else gather(mask.sum())
        balance = (
            batch
            / tokens
            * balance_loss(logits, mask, terms.num_experts, terms.top_k, terms.balance_over, gather)
        )
        if self.statistics:
            trash = trash_share(logits, mask, terms.num_experts, terms.top_k)
            self.note("trash_share", share * trash)
        return self._sum(cross_entropy, balance, constraint)

    def packed_objective(self, outputs: PackedOutput, inputs: Packed) -> Tensor:
        """Return the sum of the loss terms of a packed pass, and note each."""
        terms, micro = self.terms, inputs["micro"]
        tokens, targets = self._totals[:2]
        logits, index = outputs.logits, outputs.index
        assert outputs.cross_entropy is not None
        assert logits is not None
        assert index is not None
        # A term that only is noted needs no gradient.
        with torch.set_grad_enabled(terms.constraint_weight > 0):
            constraint = constraint_sum(
                logits, micro, terms.num_experts, terms.top_k, terms.alpha, terms.beta
            )
        with torch.set_grad_enabled(terms.balance_weight > 0):
            balance = balance_sum(
                logits, index, micro, terms.num_experts, terms.balance_over, self._gather()
            )
        if self.statistics:
            self.note("trash_share", trash_sum(index, micro, terms.num_experts) / tokens)
        return self._sum(outputs.cross_entropy / targets, balance / tokens, constraint / tokens)

    def _gather(self) -> Callable[[Tensor], Tensor] | None:
        """Return what adds up a tensor over the processes that share a micro-batch, if any do."""
        return self.accelerator.reduce if self.split.parts > 1 else None

    def _sum(self, cross_entropy: Tensor, balance: Tensor, constraint: Tensor) -> Tensor:
        terms = self.terms
        self.note("cross_entropy", cross_entropy)
        self.note("balance", balance)
        self.note("constraint", constraint)
        return (
            terms.lm_weight * cross_entropy
            + terms.balance_weight * balance
            + terms.constraint_weight * constraint
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms of the step, and pass the figures on to the job."""
        if self._sums and "loss" in logs:
            logs.update(self._gathered())
            record_step(self, self.job, logs)
        super().log(logs, start_time)

    def note(self, name: str, value: Tensor) -> None:
        """Add a micro-batch's share of a figure that is logged, one number or one a layer."""
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _gathered(self) -> dict[str, float]:
        values = torch.cat([value.reshape(-1) for value in self._sums.values()])
        summed = self.accelerator.reduce(values, reduction="sum")
        parts = summed.split([value.numel() for value in self._sums.values()])
        means = torch.stack([part.mean() for part in parts])
        numbers = torch.cat([means, summed]).tolist()  # the device is asked but once a step
        found = dict(zip(self._sums, numbers, strict=False))
        rest = iter(numbers[len(parts) :])
        for name, value in self._sums.items():
            figures = [next(rest) for _ in range(value.numel())]
            if value.ndim:
                found |= {f"{name}/layer_{at:02d}": figure for at, figure in enumerate(figures)}
        self._sums = {}
        return found

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Return all weights, where processes have shared them out (FSDP); each must call this."""
        if not self.is_fsdp_enabled:
            return None
        found: dict[str, Tensor] = self.accelerator.get_state_dict(self.model)
        return found

    def _get_train_sampler(
        self, train_dataset: TrainingRows | TwinRows | None = None
    ) -> Sampler[int]:
        rows = train_dataset or self.train_dataset
        split = self.split
        together = split.together if split.processes > 1 else 1
        return rows.sampler(split.batch * split.parts, self.args.seed, together)

    def _save(
        self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        assert output_dir is not None
        tensors = trained_tensors(self.model)
        if state_dict is not None:  # what processes had shared out: all call this, one has it whole
            if not self.args.should_save:
                return
            tensors = {name: state_dict[name] for name in tensors}
        save_partial(Path(output_dir), tensors, self.base, self.job.models)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        load_trained(self.model if model is None else model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()  # each process saves its random state
        if self.args.should_save:
            step = self.state.global_step
            folder = self.job.checkpoints / f"checkpoint-{step}"
            # Trainer's own pickle of the weights, under FSDP: they lie beside it as safetensors.
            (folder / f"{FSDP_MODEL_NAME}.bin").unlink(missing_ok=True)
            finish_checkpoint(folder, keep=self.state.max_steps + 1)
            remove_passing_checkpoints(self.job.checkpoints, step, self.keep_every)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name, in their own dtype."""
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


def load_trained(model: nn.Module, folder: Path) -> None:
    """Copy a checkpoint's tensors into the model; every trained parameter must be there."""
    saved = load_file(folder / PARTIAL_WEIGHTS)
    wanted = {n: weight for n, weight in model.named_parameters() if weight.requires_grad}
    if saved.keys() != wanted.keys():
        raise StageError(
            f"{folder}: this checkpoint trains other tensors than the recipe",
            hint="start the stage afresh (--fresh warmup)",
        )
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(model, dict(saved), options=options)


def remove_passing_checkpoints(folder: Path, newest: int, keep_every: int | None) -> None:
    """Remove checkpoints that neither resuming nor ``keep_every`` (steps) asks for."""
    for marker in folder.glob(f"checkpoint-*/{COMPLETE}"):
        step = int(marker.parent.name.rpartition("-")[2])
        kept = keep_every is not None and step % keep_every == 0
        if step != newest and not kept:
            marker.unlink()  # first: half a checkpoint must not count as whole
            shutil.rmtree(marker.parent, ignore_errors=True)

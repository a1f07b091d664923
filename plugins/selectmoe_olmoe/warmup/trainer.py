"""The trainer of the warm-ups: the loss of Select-MoE, and checkpoints of what is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from selectmoe_core import ModelRef, StageError
from selectmoe_core.models import PARTIAL_WEIGHTS, save_partial
from selectmoe_core.training import StepTrainer, summed_cross_entropy
from selectmoe_olmoe.fused.training_pass import PackedOutput
from selectmoe_olmoe.model.losses import (
    BalanceOver,
    balance_loss,
    constraint_per_token,
    trash_share,
)
from selectmoe_olmoe.warmup.batches import Batch
from selectmoe_olmoe.warmup.packed_losses import balance_sum, constraint_sum, trash_sum
from selectmoe_olmoe.warmup.packed_rows import Packed

PLAIN = "transformers"
"""The kernel of a model that uses transformers' own code with padded batches."""


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


class WarmupTrainer(StepTrainer):
    """Trains the parameters that require a gradient; checkpoints hold only these, in their dtype.

    Each term of the loss is divided by its count over the whole optimizer step. (The balance loss
    is not a sum over tokens: its micro-batches are weighted by their tokens.)

    Args:
        terms: the weights and shapes of the loss.
        base: the model that training starts from, to which checkpoints point.
        statistics: whether to log the share of slots that go to trash cans.
        kernel: what computes the passes; unless it is ``PLAIN`` they are packed (``packed_rows``)
            for the model's ``packed_training``.
        shared: whether processes share each micro-batch.
        options: arguments of ``StepTrainer``.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        base: ModelRef,
        statistics: bool,
        kernel: str,
        shared: bool,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        self.terms = terms
        self.base = base
        self.statistics = statistics
        self.kernel = kernel
        self.shared = shared
        self._sums: dict[str, Tensor] = {}

    def pass_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return a pass's share of the step's loss."""
        if self.kernel != PLAIN:
            return self.packed_objective(model(packed=inputs), inputs)
        # Right padding under causal attention needs no mask, and none is the faster kernel.
        outputs = model(input_ids=inputs["input_ids"], output_router_logits=True, use_cache=False)
        return self.objective(outputs.logits, outputs.router_logits, inputs)

    def objective(self, vocabulary: Tensor, logits: tuple[Tensor, ...], inputs: Batch) -> Tensor:
        """Return the sum of the loss terms, and record each.

        Args:
            vocabulary: the model's logits, ``[batch, length, vocabulary]``.
            logits: the router logits of each layer, ``[batch * length, experts + trash]``.
            inputs: the batch.
        """
        terms = self.terms
        mask = inputs["attention_mask"].reshape(-1).float()
        tokens, targets = self.totals[:2]
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
        """Return the sum of the loss terms of a packed pass, and record each."""
        terms, micro = self.terms, inputs["micro"]
        tokens, targets = self.totals[:2]
        logits, index = outputs.logits, outputs.index
        assert outputs.cross_entropy is not None
        assert logits is not None
        assert index is not None
        # A term that is only logged needs no gradient.
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
        """Return a function that sums a tensor over processes that share micro-batches, if any."""
        return self.accelerator.reduce if self.shared else None

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

    def note(self, name: str, value: Tensor) -> None:
        """Add a micro-batch's share of a logged figure: one number, or one per layer."""
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def figures(self) -> dict[str, float]:
        """Return the step's sums of all recorded figures, over all processes."""
        if not self._sums:
            return {}
        values = torch.cat([value.reshape(-1) for value in self._sums.values()])
        summed = self.accelerator.reduce(values, reduction="sum")
        parts = summed.split([value.numel() for value in self._sums.values()])
        means = torch.stack([part.mean() for part in parts])
        numbers = torch.cat([means, summed]).tolist()  # one transfer from the device per step
        found = dict(zip(self._sums, numbers, strict=False))
        rest = iter(numbers[len(parts) :])
        for name, value in self._sums.items():
            figures = [next(rest) for _ in range(value.numel())]
            if value.ndim:
                found |= {f"{name}/layer_{at:02d}": figure for at, figure in enumerate(figures)}
        self._sums = {}
        return found

    def save_weights(self, folder: Path, whole: Mapping[str, Tensor] | None) -> None:
        """Write the trained parameters and a pointer to the model with all others."""
        tensors = trained_tensors(self.model)
        if whole is not None:
            tensors = {name: whole[name] for name in tensors}
        save_partial(folder, tensors, self.base, self.job.models)

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Copy a checkpoint's tensors into the model."""
        load_trained(model, folder)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name, in their own dtype."""
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


def load_trained(model: nn.Module, folder: Path) -> None:
    """Copy a checkpoint's tensors into the model; every trained parameter must exist in it."""
    saved = load_file(folder / PARTIAL_WEIGHTS)
    wanted = {n: weight for n, weight in model.named_parameters() if weight.requires_grad}
    if saved.keys() != wanted.keys():
        raise StageError(
            f"{folder}: this checkpoint has other trained tensors than the recipe",
            hint="rerun the stage with --fresh warmup",
        )
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(model, dict(saved), options=options)

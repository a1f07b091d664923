"""The tokens that count for a language model's loss, and the sum of the loss over them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selectmoe_core.errors import DataError
from selectmoe_core.tokens.encoding import Encoded

LOGITS = 2**25
"""Number of logits that are held at once while a loss is computed: 128 MiB in fp32."""


class CountedRows:
    """The encoded examples in which at least one token counts for the loss.

    Attributes:
        encoded: all examples.
        rows: the positions in ``encoded`` of those that count, in its order, int64 ``[rows]``.
        lengths: their numbers of tokens, ``[rows]``.

    Raises:
        DataError: no token of any example counts.
    """

    def __init__(self, encoded: Encoded) -> None:
        self.encoded = encoded
        self.per_example = encoded.chat.config.average == "example"
        counted = [row for row in range(len(encoded)) if self._counts(row).any()]
        if not counted:
            raise DataError(
                f"no token of the {len(encoded)} examples counts for the loss",
                hint="raise [chat] max_length, or set [chat] loss_on = 'everything'",
            )
        self.rows = np.array(counted, dtype=np.int64)
        self.lengths = encoded.lengths[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def loss_weights(self, row: int) -> np.ndarray:
        """Return the loss weight of each token of an example as a target, float32 ``[length]``."""
        weights = self._counts(row).astype(np.float32)
        if self.per_example:
            weights /= weights.sum()
        return weights

    def _counts(self, row: int) -> np.ndarray:
        counts = self.encoded.chat.counts(self.encoded[row].parts).copy()
        counts[:1] = False  # the first token is not predicted
        return counts


def summed_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the targets' negative log probabilities times their weights, in fp32.

    Args:
        logits: ``[rows, length, vocabulary]``, each predicting the target at the same place.
        targets: token ids, ``[rows, length]``.
        weights: ``[rows, length]``; no loss is computed where they are zero.
    """
    kept = weights > 0
    losses = nn.functional.cross_entropy(logits[kept].float(), targets[kept], reduction="none")
    return (losses * weights[kept]).sum()


def head_logits(causal: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401
    """Return a causal model's logits for its decoder's output, ``[..., vocabulary]``.

    Cohere multiplies, Granite divides and Gemma limits the output of the head.
    """
    config = causal.config
    found: Tensor = causal.get_output_embeddings()(hidden)
    if (factor := getattr(config, "logit_scale", None)) is not None:
        found = found * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        found = found / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        found = torch.tanh(found / cap) * cap
    return found


def summed_head_loss(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor,
    vocabulary: int,
) -> Tensor:
    """Return ``summed_cross_entropy`` of ``head(hidden)``, holding the logits of few rows at once.

    Logits are computed again for the gradient, which costs a third of the head's time; of a 7B
    model that is half a percent. A kernel that joins head and loss would save that, but knows
    neither heads with LoRA weights nor what some models do to their logits.

    Args:
        head: makes logits ``[rows, vocabulary]`` of ``[rows, hidden]``.
        hidden: of the places before the targets, ``[targets, hidden]``.
        targets: token ids, ``[targets]``.
        weights: fp32 ``[targets]``.
        vocabulary: of the head; with it the rows shrink.
    """

    def part(rows: Tensor, ids: Tensor, scales: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(head(rows).float(), ids, reduction="none")
        return (losses * scales).sum()

    size = max(1, LOGITS // vocabulary)
    parts = [
        checkpoint(part, *piece, use_reentrant=False)
        for piece in zip(*(x.split(size) for x in (hidden, targets, weights)), strict=True)
    ]
    # No target at all: a zero that still has a gradient for the model.
    return torch.stack(parts).sum() if len(targets) else hidden.float().sum()

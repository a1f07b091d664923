"""The loss on chosen tokens of many sequences; the head runs only on these."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selectmoe_core import ModelError
from selectmoe_core.models import Batch, padded, within_budget

HEAD_BYTES = 1 << 28
"""The most bytes of fp32 logits in memory at once."""


class TokenLosses:
    """A causal language model that returns the loss of each token.

    Args:
        model: a loaded causal language model of transformers, or PEFT around one.
        device: the device of the model.
        batch_tokens: tokens of a forward pass, including padding.

    Raises:
        ModelError: the model's decoder cannot be separated from its head.
    """

    def __init__(self, model: Any, device: str, batch_tokens: int) -> None:  # noqa: ANN401
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._decoder = self._model.base_model
        self._device = device
        self._batch_tokens = batch_tokens
        vocabulary = int(self._model.config.get_text_config().vocab_size)
        self._rows = max(1, HEAD_BYTES // (4 * vocabulary))
        self._check()

    def of(self, ids: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the loss on each token that counts, in nats.

        Args:
            ids: token ids of each sequence, ``[length]``.
            masks: which tokens count, bool ``[length]``; a first token has nothing before it and
                must not count.

        Returns:
            For each sequence fp32 ``[counted]``: minus the log-probability of the token after all
            tokens before it. A sequence's losses depend on the others only through rounding.
        """
        found = [np.empty(0, dtype=np.float32)] * len(ids)
        rows = np.array([row for row, mask in enumerate(masks) if mask.any()], dtype=np.int64)
        lengths = np.array([len(sequence) for sequence in ids], dtype=np.int64)[rows]
        for places in within_budget(lengths, self._batch_tokens):
            batch = padded(rows[places], ids, masks, self._device)
            counts = batch.mask.sum(dim=1).cpu().numpy()
            losses = self._read(batch).cpu().numpy()
            pieces = np.split(losses, np.cumsum(counts)[:-1])
            for row, piece in zip(batch.rows.tolist(), pieces, strict=True):
                found[row] = piece
        return found

    @torch.inference_mode()
    def after(self, ids: Sequence[np.ndarray], tokens: np.ndarray) -> np.ndarray:
        """Return how likely some tokens are after each sequence.

        Args:
            ids: token ids of each sequence, ``[length]``, at least one.
            tokens: the ids of the tokens, int64 ``[tokens]``.

        Returns:
            Their log-probabilities among all tokens, fp32 ``[sequences, tokens]``.
        """
        found = np.empty((len(ids), len(tokens)), dtype=np.float32)
        lengths = np.array([len(sequence) for sequence in ids], dtype=np.int64)
        wanted = torch.from_numpy(tokens).to(self._device)
        lasts = [np.arange(length) == length - 1 for length in lengths.tolist()]
        for places in within_budget(lengths, self._batch_tokens):
            batch = padded(places, ids, lasts, self._device)
            states = self._decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
            pieces = [
                self._logits(some).float().log_softmax(-1)[:, wanted]
                for some in states[batch.mask].split(self._rows)
            ]
            found[places] = torch.cat(pieces).cpu().numpy()
        return found

    @torch.inference_mode()
    def _read(self, batch: Batch) -> Tensor:
        """Return the losses of a batch's counted tokens, fp32 ``[counted]``, row after row.

        There is no attention mask: with a causal mask no real token attends to the padding.
        """
        states = self._decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
        counted = batch.mask[:, 1:]
        before, targets = states[:, :-1][counted], batch.ids[:, 1:][counted]
        del states
        losses = [
            cross_entropy(self._logits(some).float(), wanted, reduction="none")
            for some, wanted in zip(
                before.split(self._rows), targets.split(self._rows), strict=True
            )
        ]
        return torch.cat(losses)

    def _logits(self, states: Tensor) -> Tensor:
        """Return the logits ``[tokens, vocabulary]`` of last hidden states ``[tokens, hidden]``.

        The whole model is called, so that its changes of the logits (caps, scales) are included.
        """
        ids = torch.zeros((1, len(states)), dtype=torch.long, device=self._device)
        with _answering(self._decoder, states[None]):
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits

    @torch.inference_mode()
    def _check(self) -> None:
        """Compare the decoder followed by the head with the whole model."""
        if self._decoder is not self._model:
            ids = torch.arange(3, device=self._device)[None]
            whole = self._model(input_ids=ids, use_cache=False).logits[0]
            states = self._decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
            apart = self._logits(states)
            if whole.shape == apart.shape and torch.allclose(whole, apart, rtol=1e-2, atol=1e-2):
                return
        raise ModelError(
            f"the decoder of {type(self._model).__name__} cannot be separated from its head",
            hint="score with a causal language model that is part of transformers",
        )


@contextmanager
def _answering(decoder: Any, states: Tensor) -> Iterator[None]:  # noqa: ANN401
    """Let the decoder return given hidden states ``[1, tokens, hidden]`` inside the block."""
    from transformers.modeling_outputs import MoeModelOutputWithPast

    decoder.forward = lambda *_, **__: MoeModelOutputWithPast(last_hidden_state=states)
    try:
        yield
    finally:
        del decoder.forward

"""Causal attention within packed sequences: flash attention, or padded rows without it."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Attention(Protocol):
    """Causal attention of each sequence only to itself."""

    name: str

    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        starts: Tensor,
        longest: int,
    ) -> Tensor:
        """Return ``[tokens, heads, size]`` in the dtype of the queries.

        Args:
            queries: ``[tokens, heads, size]``.
            keys: ``[tokens, key_heads, size]``.
            values: ``[tokens, key_heads, size]``.
            positions: each token's place in its sequence, int32 ``[tokens]``.
            starts: first token of each sequence and, last, ``tokens``: int32 ``[sequences + 1]``.
            longest: tokens of the longest sequence.
        """
        ...


class VarlenAttention:
    """Torch's flash attention over sequences of varying length."""

    name = "varlen"

    def __init__(self) -> None:
        self._call, self._causal = _varlen()

    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,  # noqa: ARG002
        starts: Tensor,
        longest: int,
    ) -> Tensor:
        """See ``Attention``."""
        if (groups := queries.shape[1] // keys.shape[1]) > 1:
            keys, values = (heads.repeat_interleave(groups, dim=1) for heads in (keys, values))
        out: Tensor = self._call(
            queries, keys, values, starts, starts, longest, longest, **self._causal
        )
        return out


class PaddedAttention:
    """Scaled dot-product attention over sequences padded to the longest."""

    name = "padded"

    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        starts: Tensor,
        longest: int,
    ) -> Tensor:
        """See ``Attention``."""
        if (groups := queries.shape[1] // keys.shape[1]) > 1:
            keys, values = (heads.repeat_interleave(groups, dim=1) for heads in (keys, values))
        sequences = len(starts) - 1
        token = torch.arange(len(queries), device=queries.device)
        owner = torch.searchsorted(starts[1:], token.to(starts.dtype), right=True)
        at = owner * longest + positions

        def padded(part: Tensor) -> Tensor:
            rows = part.new_zeros(sequences * longest, *part.shape[1:])
            return rows.index_copy_(0, at, part).unflatten(0, (sequences, longest)).transpose(1, 2)

        attended = functional.scaled_dot_product_attention(
            padded(queries), padded(keys), padded(values), is_causal=True
        )
        return attended.transpose(1, 2).flatten(0, 1)[at]


def attention_for(weight: Tensor) -> Attention:
    """Return the best attention for a model of weights like ``weight``."""
    fits = weight.device.type == "cuda" and weight.dtype in {torch.bfloat16, torch.float16}
    return VarlenAttention() if fits else PaddedAttention()


def _varlen() -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return torch's function and the arguments that make it causal in this release."""
    from torch.nn.attention.varlen import varlen_attn

    if "is_causal" in inspect.signature(varlen_attn).parameters:
        return varlen_attn, {"is_causal": True}
    return varlen_attn, {"window_size": (-1, 0)}

"""Causal attention within examples that lie end to end in one row, without any mask.

Four ways, the first that the machine and the model allow: torch's variable-length flash attention,
the package flash-attn, flex-attention, and scaled dot-product attention over groups of examples of
like length. All but the first and last are transformers' own.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

VARLEN, GROUPED = "selectmoe_varlen", "selectmoe_grouped"
FLASH, FLEX, PADDED = "flash_attention_2", "flex_attention", "sdpa"
KNOWN = frozenset(inspect.signature(varlen_attn).parameters)
"""The arguments of torch's function that this release knows; they grew from release to release."""
AMPERE = (8, 0)
SPREAD = 2
"""A group's longest example is at most so many times as long as its shortest."""


@dataclass(frozen=True)
class Attention:
    """A way of attending.

    Attributes:
        name: what transformers knows it by.
        packed: whether examples lie end to end.
        grouped: whether it needs the groups of ``groups``.
        compiles: whether layers can be compiled around it.
    """

    name: str
    packed: bool = True
    grouped: bool = False
    compiles: bool = False


def attention_for(config: Any, device: str, dtype: str, *, packing: bool) -> Attention:  # noqa: ANN401
    """Return the best way for a model of transformers' ``config``.

    Args:
        config: the model's configuration.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: what the model computes in.
        packing: whether examples are laid end to end; padded rows need no more than sdpa.
    """
    cuda = device.startswith("cuda")
    if not packing:
        return Attention(PADDED, packed=False, compiles=cuda)
    nvidia = cuda and not torch.version.hip
    modern = nvidia and torch.cuda.get_device_capability(device) >= AMPERE
    half = dtype in {"bfloat16", "float16"}
    dropout = float(getattr(config, "attention_dropout", 0.0) or 0.0)
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    if modern and half and not dropout and not capped and _fits_varlen(config):
        return Attention(VARLEN, compiles=True)
    if modern and half and find_spec("flash_attn"):
        return Attention(FLASH)
    if modern and not dropout and find_spec("triton"):
        return Attention(FLEX)
    if capped:  # no kernel of sdpa's knows the cap
        return Attention("eager")
    return Attention(GROUPED, grouped=True)


def use(attention: Attention, model: Any) -> None:  # noqa: ANN401
    """Make a transformers model attend that way."""
    from transformers import AttentionInterface

    own: dict[str, Callable[..., tuple[Tensor, None]]] = {VARLEN: varlen, GROUPED: grouped}
    if attention.name in own:
        AttentionInterface.register(attention.name, own[attention.name])
    model.set_attn_implementation(attention.name)


def groups(lengths: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Cut examples that lie end to end, the longest first, into groups of like length.

    Returns:
        for each group the places of its tokens, ``[examples, longest]``; behind a shorter example
            stands its last token's place again, which no token before it sees;
        where each token is among the groups' places laid end to end, ``[tokens]``.
    """
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    rows: list[Tensor] = []
    back = torch.empty(starts[-1], dtype=torch.long)
    first, before = 0, 0
    while first < len(lengths):
        longest = lengths[first]
        after = first
        while after < len(lengths) and lengths[after] * SPREAD >= longest:
            after += 1
        start = torch.tensor(starts[first:after])[:, None]
        size = torch.tensor(lengths[first:after])[:, None]
        place = torch.arange(longest)
        rows.append(start + torch.minimum(place, size - 1))
        inside = place < size
        back[rows[-1][inside]] = before + inside.flatten().nonzero().squeeze(1)
        before += inside.numel()
        first = after
    return rows, back


def varlen(
    module: Any,  # noqa: ANN401, ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None = None,  # noqa: ARG001
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Torch's flash attention over examples of varying length, as transformers calls attention.

    Args:
        module: the attention layer.
        query: ``[1, heads, tokens, size]``.
        key: ``[1, key_heads, tokens, size]``.
        value: ``[1, key_heads, tokens, size]``.
        attention_mask: none.
        cu_seq_lens_q: first token of each example and, last, ``tokens``: int32 ``[examples + 1]``.
        max_length_q: tokens of the longest example.
        scaling: what scores are multiplied by; by default ``size ** -0.5``.
        sliding_window: tokens that a token sees, itself included; by default all before it.

    Returns:
        ``[1, tokens, heads, size]`` and no weights.
    """
    # Rotary tables in fp32 can have raised queries and keys; values come straight from a product.
    q, k, v = (x.to(value.dtype)[0].transpose(0, 1) for x in (query, key, value))
    options: dict[str, Any] = {}
    if "window_size" in KNOWN:
        options["window_size"] = (-1 if sliding_window is None else sliding_window - 1, 0)
    else:
        options["is_causal"] = True
    default = q.shape[-1] ** -0.5
    if scaling is not None and scaling != default:
        if "scale" in KNOWN:
            options["scale"] = scaling
        else:
            q = q * (scaling / default)
    if (times := q.shape[1] // k.shape[1]) > 1:
        if "enable_gqa" in KNOWN:
            options["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
    starts, longest = cu_seq_lens_q, max_length_q
    out = cast("Tensor", varlen_attn(q, k, v, starts, starts, longest, longest, **options))
    return out[None], None


def grouped(
    module: Any,  # noqa: ANN401, ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None = None,  # noqa: ARG001
    *,
    group_rows: Sequence[Tensor],
    group_back: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, group by group.

    What it shares with ``varlen`` is explained there; ``group_rows`` and ``group_back`` are what
    ``groups`` returns, ``dropout`` is of the attention weights.
    """
    times = query.shape[1] // key.shape[1]
    outs = []
    for rows in group_rows:
        q, k, v = (x[0][:, rows].transpose(0, 1) for x in (query, key, value))
        if times > 1:
            k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
        near = _window(rows.shape[1], sliding_window, rows.device)
        out = functional.scaled_dot_product_attention(
            q, k, v, near, dropout_p=dropout, is_causal=near is None, scale=scaling
        )
        outs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outs)[group_back][None], None


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return which token sees which, bool ``[length, length]``, if the window matters at all."""
    if window is None or window >= length:
        return None
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)


def _fits_varlen(config: Any) -> bool:  # noqa: ANN401
    windowed = getattr(config, "sliding_window", None) is not None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size % 8 == 0 and size <= 256 and (not windowed or "window_size" in KNOWN)

"""Errors and times of the packed decoder's steps, for ``scoring.py``."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from scoring_rates import ATTENTION, joined
from torch import Tensor
from torch.nn import functional

from selectmoe_core.tokens import moved, packed
from selectmoe_olmoe.fused.launches import TritonSteps
from selectmoe_olmoe.fused.ops import Gate, TorchSteps
from selectmoe_router.packed import PackedMeans

Errors = dict[str, tuple[float, float]]
EPS = 1e-5


def relative(found: Tensor, wanted: Tensor) -> float:
    """Return the norm of the difference over the norm of what was wanted; NaN counts as 1e9."""
    error = ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()
    return error if error == error else 1e9  # noqa: PLR0124


def errors(model: Any, decoder: Any, kind: str, device: str, dtype: torch.dtype) -> Errors:  # noqa: ANN401
    """Return, for each step and for a whole layer, our relative error and eager's."""
    steps = TritonSteps() if kind == "triton" else TorchSteps()
    return _steps(model, steps, device, dtype) | _layer(model, decoder, device, dtype)


def _steps(model: Any, steps: Any, device: str, dtype: torch.dtype) -> Errors:  # noqa: ANN401
    config, plain = model.config, TorchSteps()
    tokens, hidden = 4099, config.hidden_size
    heads, size = config.num_attention_heads, hidden // config.num_attention_heads

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    x, delta, weight = draw(tokens, hidden), draw(tokens, hidden), draw(hidden)
    found: Errors = {}
    wide = [one.float() for one in (x, delta, weight)]

    def eager_norm(one: Tensor) -> Tensor:
        values = one.float()
        values = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + EPS)
        return weight * values.to(one.dtype)

    wanted = plain.norm(wide[0], wide[2], EPS)
    found["norm"] = (relative(steps.norm(x, weight, EPS), wanted), relative(eager_norm(x), wanted))
    total, normed = steps.add_norm(x.clone(), delta, weight, EPS)
    sums, wanted = plain.add_norm(*wide, EPS)
    found["add_norm: sum"] = relative(total, sums), relative(x + delta, sums)
    found["add_norm: norm"] = relative(normed, wanted), relative(eager_norm(x + delta), wanted)
    found |= _rotary(model, steps, (x, weight), (tokens, heads, size), eager_norm)
    found |= _routing(model, steps, x)
    found |= _experts(config, steps, draw, tokens, (x, weight), eager_norm)
    return found


def _rotary(
    model: Any,  # noqa: ANN401
    steps: Any,  # noqa: ANN401
    inputs: tuple[Tensor, Tensor],
    shape: tuple[int, int, int],
    eager_norm: Callable[[Tensor], Tensor],
) -> Errors:
    from transformers.models.olmoe.modeling_olmoe import apply_rotary_pos_emb

    x, weight = inputs
    places = torch.randint(2000, (shape[0],), device=x.device)
    half = shape[2] // 2
    wide = model.rotary_emb(
        torch.empty(1, device=x.device), torch.arange(2000, device=x.device)[None]
    )
    tables = tuple(table[0, :, :half].contiguous() for table in wide)
    ours = x.clone().view(shape)
    steps.norm_rotary_(ours, weight, tables, places.to(torch.int32), EPS)
    wanted = x.float().view(shape).clone()
    TorchSteps().norm_rotary_(wanted, weight.float(), tables, places.to(torch.int32), EPS)
    rows = eager_norm(x).view(shape).transpose(0, 1)[None]
    cosines, sines = (table[0][places].to(x.dtype)[None] for table in wide)
    theirs = apply_rotary_pos_emb(rows, rows, cosines, sines)[0][0].transpose(0, 1)
    return {"norm_rotary": (relative(ours, wanted), relative(theirs, wanted))}


def _routing(model: Any, steps: Any, x: Tensor) -> Errors:  # noqa: ANN401
    config = model.config
    weight = model.layers[0].mlp.gate.weight.to(x.dtype)
    gate = Gate(weight, config.num_experts, config.num_experts_per_tok, normed=False)
    routed = steps.route(x, gate)
    wanted = TorchSteps().route(x.float(), gate)
    logits = functional.linear(x, weight)
    theirs = logits.float().softmax(-1).topk(gate.top_k).values.to(x.dtype)
    moved = (steps.spread(x, routed.position), TorchSteps().spread(x, routed.position))
    last = int(routed.ends[-1])
    position = routed.position[routed.position >= 0].sort().values
    whole = torch.equal(position, torch.arange(last, device=x.device, dtype=torch.int32))
    same = (_experts_of(routed) == _experts_of(wanted)).float().mean().item()
    return {
        "gate: logits": (relative(routed.logits, wanted.logits), relative(logits, wanted.logits)),
        "gate: scores": (relative(routed.scores, wanted.scores), relative(theirs, wanted.scores)),
        "order: a permutation": (0.0 if whole else 1e9, 0.0),
        "order: other experts": (1 - same, 0.01),
        "spread": (relative(moved[0][:last], moved[1][:last]), 0.0),
    }


def _experts_of(routed: Any) -> Tensor:  # noqa: ANN401
    """Return the expert of each pair from its place, -1 for a trash can: sorted for each token."""
    found = torch.searchsorted(routed.ends, routed.position, right=True)
    return torch.where(routed.position < 0, -1, found).sort(dim=1).values


def _experts(
    config: Any,  # noqa: ANN401
    steps: Any,  # noqa: ANN401
    draw: Callable[..., Tensor],
    tokens: int,
    inputs: tuple[Tensor, Tensor],
    eager_norm: Callable[[Tensor], Tensor],
) -> Errors:
    plain, (x, weight) = TorchSteps(), inputs
    wide, top_k = config.intermediate_size, config.num_experts_per_tok
    gate = Gate(draw(config.num_experts + 8, len(weight)) * 0.02, config.num_experts, top_k, False)
    routed = plain.route(x.float(), gate)
    last = int(routed.ends[-1])
    both = draw(tokens * top_k, 2 * wide)
    ours, wanted = (
        steps.silu_times(both, routed.ends)[:last],
        plain.silu_times(both.float(), routed.ends)[:last],
    )
    left, right = both[:last].chunk(2, dim=-1)
    found = {
        "silu_times": (relative(ours, wanted), relative(functional.silu(left) * right, wanted))
    }
    pairs = draw(tokens * top_k, len(weight))
    pairs[last:] = float("nan")  # what no expert wrote must not be read
    total, normed = steps.combine(x.clone(), pairs, routed, weight, EPS)
    wanted, wanted_norm = plain.combine(x.float(), pairs.float(), routed, weight.float(), EPS)
    at = routed.position.long()
    parts = pairs[at.clamp(min=0)] * routed.scores.to(x.dtype)[..., None]
    theirs = x + torch.where((at >= 0)[..., None], parts, 0).sum(1)
    found["combine: sum"] = relative(total, wanted), relative(theirs, wanted)
    found["combine: norm"] = (
        relative(normed, wanted_norm),
        relative(eager_norm(theirs), wanted_norm),
    )
    return found


@torch.inference_mode()
def _layer(model: Any, decoder: Any, device: str, dtype: torch.dtype) -> Errors:  # noqa: ANN401
    """Compare a whole layer: 16 sequences of 256 tokens."""
    sequences, length, hidden = 16, 256, model.config.hidden_size
    x = torch.randn(sequences, length, hidden, device=device).to(dtype)
    places = torch.arange(length, device=device)
    starts = torch.arange(0, sequences * length + 1, length, device=device, dtype=torch.int32)
    positions = places.repeat(sequences).to(torch.int32)
    model.set_experts_implementation("eager")
    try:
        layer = model.layers[0]
        angles = model.rotary_emb(x, places[None])
        theirs = layer(x, position_embeddings=angles, attention_mask=None)
        wide = deepcopy(layer).float()
        angles = model.rotary_emb(x.float(), places[None])
        wanted = wide(x.float(), position_embeddings=angles, attention_mask=None)
    finally:
        model.set_experts_implementation("grouped_mm")
    ours = decoder.layer(0, x.flatten(0, 1), positions, starts, length).view_as(x)
    added = wanted - x.float()
    return {
        "whole layer": (relative(ours, wanted), relative(theirs, wanted)),
        "whole layer, what it adds": (
            relative(ours.float() - x.float(), added),
            relative(theirs.float() - x.float(), added),
        ),
    }


Call = tuple[Callable[[], object], float, float]


def calls(
    model: Any,  # noqa: ANN401
    decoder: Any,  # noqa: ANN401
    routing: Any,  # noqa: ANN401
    tokens: int,
    device: str,
    dtype: torch.dtype,
) -> dict[str, Call]:
    """Return each step as a call with the bytes it must move and the FLOPs it must do."""
    config, steps = model.config, decoder._steps  # noqa: SLF001
    layer = decoder._layers[0]  # noqa: SLF001
    hidden = config.hidden_size
    heads, size = config.num_attention_heads, hidden // config.num_attention_heads
    x, delta = (torch.randn(tokens, hidden, device=device).to(dtype) for _ in "ab")
    normed = steps.norm(x, layer.input_norm, EPS)
    routed = steps.route(normed, layer.gate)
    rows = steps.spread(normed, routed.position)
    experts, pairs = _expert_calls(steps, layer, routed, rows)
    qkv = functional.linear(normed, layer.qkv)
    queries, keys, values = qkv.view(tokens, 3, heads, size).unbind(1)
    length = 256
    positions = (torch.arange(tokens, device=device) % length).to(torch.int32)
    starts = torch.arange(0, tokens + 1, length, device=device, dtype=torch.int32)
    row = tokens * hidden * x.element_size()
    expert_rows = int(routed.ends[-1]) * hidden * x.element_size()
    tables = decoder._tables  # noqa: SLF001
    found: dict[str, Call] = {
        "norm": (lambda: steps.norm(x, layer.input_norm, EPS), 2 * row, 0),
        "add_norm": (lambda: steps.add_norm(x, delta, layer.expert_norm, EPS), 4 * row, 0),
        "norm_rotary": (
            lambda: steps.norm_rotary_(queries, layer.q_norm, tables, positions, EPS),
            2 * row,
            0,
        ),
        "route": (
            lambda: steps.route(normed, layer.gate),
            row,
            2 * tokens * hidden * len(layer.gate.weight),
        ),
        "spread": (lambda: steps.spread(normed, routed.position), row + expert_rows, 0),
        **experts,
        "combine": (
            lambda: steps.combine(x, pairs, routed, layer.input_norm, EPS),
            3 * row + expert_rows,
            0,
        ),
        "qkv": (
            lambda: functional.linear(normed, layer.qkv),
            4 * row,
            6.0 * tokens * hidden * hidden,
        ),
        "out": (
            lambda: functional.linear(normed, layer.out),
            2 * row,
            2.0 * tokens * hidden * hidden,
        ),
    }
    found |= _attentions(queries, keys, values, positions, starts, length)
    found |= _reduction(routing, routed.logits, starts)
    return found


def _expert_calls(
    steps: Any,  # noqa: ANN401
    layer: Any,  # noqa: ANN401
    routed: Any,  # noqa: ANN401
    rows: Tensor,
) -> tuple[dict[str, Call], Tensor]:
    """Return the steps of the experts, and what they give for each pair of token and slot."""
    both = functional.grouped_mm(rows, layer.gate_up.transpose(1, 2), offs=routed.ends)
    acted = steps.silu_times(both, routed.ends)
    pairs = functional.grouped_mm(acted, layer.down.transpose(1, 2), offs=routed.ends)
    hidden, wide = rows.shape[1], acted.shape[1]
    count, item = int(routed.ends[-1]), rows.element_size()
    expert_rows = count * hidden * item
    found: dict[str, Call] = {
        "gate_up": (
            lambda: functional.grouped_mm(rows, layer.gate_up.transpose(1, 2), offs=routed.ends),
            expert_rows + count * 2 * wide * item,
            4.0 * count * hidden * wide,
        ),
        "silu_times": (lambda: steps.silu_times(both, routed.ends), 3 * count * wide * item, 0),
        "down": (
            lambda: functional.grouped_mm(acted, layer.down.transpose(1, 2), offs=routed.ends),
            expert_rows + count * wide * item,
            2.0 * count * hidden * wide,
        ),
    }
    return found, pairs


def _attentions(
    queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor, starts: Tensor, length: int
) -> dict[str, Call]:
    flops = 2.0 * len(queries) * length * queries.shape[1] * queries.shape[2]
    size = 4 * queries.numel() * queries.element_size()
    found: dict[str, Call] = {}
    for name, make in ATTENTION.items():
        try:
            attention = make()
            attention(queries, keys, values, positions, starts, length)
        except Exception as error:
            print(f"  {name} attention: {str(error)[:300]}", flush=True)
            continue
        found[name] = (
            lambda attention=attention: attention(queries, keys, values, positions, starts, length),
            size,
            flops,
        )
    return found


def _reduction(routing: Any, logits: Tensor, starts: Tensor) -> dict[str, Call]:  # noqa: ANN401
    tokens = joined([np.zeros(length, dtype=np.int32) for length in starts.diff().tolist()])
    counted = np.ones(len(tokens.ids), dtype=bool)
    batch = moved(packed(np.arange(len(starts) - 1), tokens, counted), str(logits.device))
    size = logits.numel() * 4
    return {
        "statistics": (
            lambda: PackedMeans(batch, routing, features=False).take(0, logits),
            size,
            0.0,
        )
    }

"""Rates of scoring for ``scoring.py``: the packed decoder's, and padded batches'."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from device import OnDevice
from parts import Parts
from plain_olmoe import plain_olmoe
from random_weights import random_model
from shapes import OLMOE, TINY, TINY_EXPERTS
from torch import Tensor

from selectmoe_core.models import OnItsWay
from selectmoe_core.tokens import even, moved, packed
from selectmoe_core.tokens.encoding import Joined
from selectmoe_olmoe.fused.attention import PaddedAttention, VarlenAttention
from selectmoe_router.packed import PackedMeans
from selectmoe_router.reduction import Routing

TRASH = 8
SEED = 7


class FlashAttention(VarlenAttention):
    """Flash attention called below torch's public function: for when that one fails."""

    name = "flash"

    def __init__(self) -> None:
        self._call, self._causal = _flash, {}


def _flash(*inputs: Any) -> Tensor:  # noqa: ANN401
    found: Tensor = torch.ops.aten._flash_attention_forward(*inputs, 0.0, True, False)[0]  # noqa: SLF001
    return found


ATTENTION: dict[str, Callable[[], Any]] = {
    "varlen": VarlenAttention,
    "flash": FlashAttention,
    "padded": PaddedAttention,
}


class Bench(OnDevice):
    """What the parts share.

    Attributes:
        parts: the parts, and the file that holds what they found.
        way: the steps and the attention of the fastest packed decoder that runs here.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.shape: dict[str, Any] = OLMOE | (TINY | TINY_EXPERTS if self.tiny else {})
        self.parts = Parts(arguments.json, after=self.empty_cache, seconds=arguments.seconds)
        self.way = ("torch", "padded")
        self.decoder: Any = None
        self.routing = Routing(self.shape["num_experts"], TRASH, self.shape["num_experts_per_tok"])
        self.layers = range(self.shape["num_hidden_layers"])
        self.ids: list[np.ndarray] = []

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.arguments.seconds - (time.monotonic() - self.start)

    def empty_cache(self) -> None:
        """Give memory that is no longer used back to the GPU."""
        if self.cuda:
            torch.cuda.empty_cache()

    def flops(self, *, experts: float | None = None, whole: bool = True) -> float:
        """FLOPs a token: ``experts`` active of a layer; without the last layer's if not whole."""
        shape = self.shape
        hidden, wide, layers = (
            shape["hidden_size"],
            shape["intermediate_size"],
            shape["num_hidden_layers"],
        )
        active = shape["num_experts_per_tok"] if experts is None else experts
        dense = 8 * hidden * hidden + 2 * hidden * (shape["num_experts"] + TRASH)
        return layers * dense + (layers - (not whole)) * active * 6 * hidden * wide


def model(bench: Bench) -> dict[str, object]:
    """Build the model with random weights on the device itself."""
    from selectmoe_olmoe.model.modeling import SelectMoeConfig, SelectMoeModel

    config = SelectMoeConfig(**bench.shape, num_trash_experts=TRASH, pad_token_id=0)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    bench.decoder = random_model(SelectMoeModel, config, bench.device, bench.dtype).eval()
    bench.decoder.requires_grad_(requires_grad=False)
    bench.decoder.set_experts_implementation("grouped_mm")
    parameters = sum(p.numel() for p in bench.decoder.parameters())
    return {"parameters": parameters, "gflop_per_token": bench.flops() / 1e9}


def packed_decoder(bench: Bench, steps: str, attention: str, warps: int = 4) -> Any:  # noqa: ANN401
    """Return the packed decoder over the model's weights."""
    from selectmoe_olmoe.fused.launches import TritonSteps
    from selectmoe_olmoe.fused.ops import TorchSteps
    from selectmoe_olmoe.fused.scoring_pass import PackedDecoder

    made = TritonSteps(warps) if steps == "triton" else TorchSteps()
    return PackedDecoder(bench.decoder, made, ATTENTION[attention]())


def packed_rate(
    bench: Bench, steps: str, attention: str, budget: int, warps: int = 4
) -> dict[str, object]:
    """Measure real tokens per second from token ids in host memory to means on the host."""
    decoder = packed_decoder(bench, steps, attention, warps)
    counts = np.array([len(row) for row in bench.ids])
    batches = even(counts, budget)
    begin = time.perf_counter()
    score(bench, decoder, batches[:2])
    warm = time.perf_counter() - begin
    times, regular = [], 0.0
    for _ in range(bench.arguments.repeats):
        begin = time.perf_counter()
        regular = score(bench, decoder, batches)
        times.append(time.perf_counter() - begin)
    done = bench.flops(experts=regular * bench.routing.top_k, whole=False)
    rate = rated(bench, int(counts.sum()), times, done)
    rate |= {"kernel": decoder.kernel, "first_batches_seconds": warm, "regular_slots": regular}
    if bench.cuda:
        rate["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(f"  {decoder.kernel}, {budget} tokens: {shown(rate)}", flush=True)
    return rate


def score(bench: Bench, decoder: Any, batches: list[np.ndarray]) -> float:  # noqa: ANN401
    """Score the batches; return the share of slots that fell to regular experts."""
    tokens = joined(bench.ids)
    counted = np.ones(len(tokens.ids), dtype=bool)
    taken = []
    for rows in batches:
        batch = moved(packed(rows, tokens, counted), bench.device)
        means = PackedMeans(batch, bench.routing, features=False)
        decoder.read(
            batch.ids, batch.positions, batch.starts, batch.longest, bench.layers, means.take
        )
        taken.append((tokens.lengths[rows], OnItsWay(means.values)))
    place = bench.routing.statistics.index("trash_slots")
    slots = sum(float((way.numpy()[:-1, :, place].mean(0) * size).sum()) for size, way in taken)
    assert np.isfinite(slots), "a mean is not finite"
    return slots / sum(int(size.sum()) for size, _ in taken)


def joined(ids: list[np.ndarray]) -> Joined:
    """Return token ids of many examples one behind another."""
    starts = np.cumsum([0, *map(len, ids)])
    together = np.concatenate(ids).astype(np.int32)
    return Joined(together, np.zeros(len(together), np.uint8), starts)


def rated(bench: Bench, tokens: int, times: list[float], done: float) -> dict[str, object]:
    """Return a rate with its spread and its shares of the ceiling."""
    seconds = statistics.median(times)
    rate = tokens / seconds
    return {
        "tokens_per_second": rate,
        "spread": (max(times) - min(times)) / seconds,
        "share_nominal": rate * bench.flops() / bench.ceiling,
        "share_of_work_done": rate * done / bench.ceiling,
        "tokens": tokens,
    }


def shown(rate: dict[str, Any]) -> str:
    """Say a rate in a line."""
    return (
        f"{rate['tokens_per_second']:,.0f} tokens/s (spread {rate['spread']:.1%}), "
        f"{rate['share_nominal']:.1%} of the ceiling by nominal work, "
        f"{rate['share_of_work_done']:.1%} by work done"
    )


def olmoe(bench: Bench, experts: str) -> Any:  # noqa: ANN401
    """Return transformers' own OLMoE decoder on the same weights, without trash cans."""
    from transformers.models.olmoe.modeling_olmoe import OlmoeModel

    decoder = plain_olmoe(OlmoeModel, bench.decoder, bench.shape, experts).eval()
    return decoder.requires_grad_(requires_grad=False)


def padded_rate(
    bench: Bench,
    decoder: Any,  # noqa: ANN401
    seconds: float,
    *,
    mask: bool = True,
) -> dict[str, object]:
    """Measure batches of 16 in pool order, padded to the longest, for some seconds."""
    times: list[float] = []
    tokens = padded = 0
    for number, start in enumerate(range(0, len(bench.ids) - 16, 16)):
        rows = bench.ids[start : start + 16]
        begin = time.perf_counter()
        ids = np.zeros((16, max(map(len, rows))), dtype=np.int64)
        real = np.zeros(ids.shape, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            real[place, : len(row)] = 1
        kept = torch.from_numpy(real).to(bench.device)
        with torch.inference_mode():
            found = decoder(
                input_ids=torch.from_numpy(ids).to(bench.device),
                attention_mask=kept if mask else None,
                output_router_logits=True,
                use_cache=False,
            ).router_logits
            reduced(bench, found, kept)
        if number < 3:  # warm-up
            continue
        times.append(time.perf_counter() - begin)
        tokens += int(real.sum())
        padded += real.size
        if sum(times) > seconds:
            break
    rate = rated(bench, tokens, [sum(times)], bench.flops()) | {"real_share": tokens / padded}
    print(f"  {shown(rate)}; {tokens / padded:.0%} of the tokens are real", flush=True)
    return rate


def reduced(bench: Bench, logits: tuple[Tensor, ...], kept: Tensor) -> list[float]:
    """Return the mean mass of the top k experts of each row, as the plainest scorer would."""
    mass = torch.stack(
        [
            layer.float()
            .softmax(-1)[:, : bench.routing.experts]
            .topk(bench.routing.top_k)
            .values.sum(-1)
            for layer in logits
        ]
    ).mean(0)
    values = mass.view(kept.shape) * kept
    return (values.sum(1) / kept.sum(1)).tolist()

"""Tokens per second and memory of warm-up, beside a plain step of transformers' OLMoE.

    python benchmarks/warmup.py --data data                  # OLMoE-1B-7B's shape, one 80 GB GPU
    python benchmarks/warmup.py --tiny --data data           # the same steps on a CPU

Random bf16 weights, the real pool's lengths and words; rates count real tokens only. A step is 64
examples. The plain one is transformers' own OLMoE with grouped_mm, not compiled: right-padded
micro-batches of 16 with their mask, its own loss, one backward pass each, then the optimizer. Ours
is the trainer of the warm-up stage as it is, with its logs. The ceiling is a bf16 matrix product
measured in the same run; shares of it count nominal work: active experts, attention projections,
gate, and the head for the tokens it is asked about; three passes of it where all weights are
trained, two where only gates are.

Every part prints its result as it goes and adds it to a file of JSON lines; a part that fails
prints why, and the rest goes on. ``--only`` names those to run. On an H100: agreement 15 s, router
45 s, memory 20 s, lora 25 s, all 50 s, small 30 s.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import ceiling, describe
from parts import Figures
from plain_olmoe import plain_olmoe
from pool_sample import spread_of, token_ids
from transformers import OlmoeForCausalLM
from warmup_steps import (
    SEED,
    STEP,
    Bench,
    Clock,
    Examples,
    Pairs,
    built,
    measured,
    ours,
    peak,
    plain_steps,
    profiled,
    reset,
)

from selectmoe_olmoe.config import ConstraintConfig, ContrastiveConfig, WarmupConfig
from selectmoe_olmoe.fused import training_pass
from selectmoe_olmoe.fused.training_ops import TorchTrainingSteps
from selectmoe_olmoe.warmup import parts as warmup_parts
from selectmoe_olmoe.warmup.optimizers import optimizer_of


def main() -> None:
    """Run the parts."""
    bench = Bench(parse())
    bench.parts.write("machine", {"machine": describe(bench.device)})
    if not bench.cuda:  # the packed path on plain steps, so that all of this script is tried
        warmup_parts.obstacle = lambda *_: None
        training_pass.TritonTrainingSteps = TorchTrainingSteps  # type: ignore[misc,assignment]
    torch.manual_seed(SEED)
    wanted, vocabulary = bench.arguments.tokens, bench.shape["vocab_size"]
    bench.ids, _ = token_ids(bench.arguments.data, wanted, vocabulary, SEED)
    bench.parts.write("lengths", spread_of(np.array([len(row) for row in bench.ids])))
    bench.ceiling = ceiling(bench.device, bench.dtype)
    bench.parts.write("ceiling", {"tflops": bench.ceiling / 1e12})
    parts = {
        "agreement": agreement,
        "router": router,
        "memory": memory,
        "lora": lora,
        "all": everything,
        "small": small,
    }
    work = {name: partial(part, bench) for name, part in parts.items()}
    failed = bench.parts.run_all(work, bench.arguments.only)
    bench.parts.write("all parts", {"seconds": round(time.monotonic() - bench.start, 1)})
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--json", type=Path, default=Path("warmup.jsonl"))
    parser.add_argument("--profiles", type=Path, default=Path("warmup-profiles.txt"))
    parser.add_argument("--tiny", action="store_true", help="a small model, on the CPU")
    parser.add_argument("--only", nargs="*", help="parts to run; by default all")
    parser.add_argument("--seconds", type=float, default=12, help="of a measurement")
    parser.add_argument("--pass-tokens", type=int, default=16384)
    arguments = parser.parse_args()
    arguments.tokens = 600_000
    if arguments.tiny:
        arguments.tokens, arguments.seconds, arguments.pass_tokens = 10_000, 1.0, 1024
    arguments.profiles.unlink(missing_ok=True)
    return arguments


def options(
    bench: Bench,
    kind: type[WarmupConfig] = ConstraintConfig,
    **changes: Any,  # noqa: ANN401
) -> WarmupConfig:
    """Return the stage's options for steps of 64 examples."""
    return kind(
        **{
            "batch_size": STEP,
            "micro_batch_size": 16,
            "max_steps": 10_000,
            "pass_tokens": bench.arguments.pass_tokens,
            **changes,
        }
    )


def router(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Only the gates of OLMoE-1B-7B's shape."""
    model = built(bench, bench.shape, bench.dtype)
    rows = Examples(bench.ids, bench.shape["vocab_size"])
    flops = bench.flops(bench.shape, passes=2, predicted=0.5)
    plain = plain_olmoe(OlmoeForCausalLM, model, bench.shape, "grouped_mm").train()
    plain.requires_grad_(requires_grad=False)
    trained = [layer.mlp.gate.weight.requires_grad_() for layer in plain.model.layers]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    base = plain_steps(bench, plain, rows, optimizer, batch=16, flops=flops)
    yield "plain, micro-batches of 16", base
    found = measured(bench, model, rows, options(bench), flops)
    yield "ours", found
    yield "ratio", {"times_as_fast": ratio(found, base)}
    yield (
        "ours, contrastive",
        measured(bench, model, Pairs(rows), options(bench, ContrastiveConfig), flops),
    )
    profiled(bench, "router", model, rows, options(bench))
    default = {"batch_size": 4, "micro_batch_size": 4}
    yield "ours, 4 examples a step", measured(bench, model, rows, options(bench, **default), flops)


def memory(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Peak memory of 4 x 512 tokens, gates alone, with checkpointing and without."""
    model = built(bench, bench.shape, bench.dtype)
    length = 64 if bench.tiny else 512
    ids = np.random.default_rng(SEED).integers(0, bench.shape["vocab_size"], (8, length))
    rows = Examples(list(ids), bench.shape["vocab_size"])
    for recompute in (True, False):
        reset(bench)
        few = {"batch_size": 4, "micro_batch_size": 4, "max_steps": 3}
        ours(bench, model, rows, options(bench, activation_checkpointing=recompute, **few))
        yield f"router, 4 x {length}, checkpointing {recompute}", {"peak_gib": peak(bench)}


def lora(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """LoRA weights of attention beside whole gates."""
    model = built(bench, bench.shape, bench.dtype)
    rows = Examples(bench.ids, bench.shape["vocab_size"])
    flops = bench.flops(bench.shape, passes=2, predicted=0.5)
    config = options(bench, peft_mode="lora", trainable="all")
    yield "ours", measured(bench, model, rows, config, flops)


def everything(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """All weights in bf16 with Adafactor: plain steps with plain rounding, ours with random."""
    model = built(bench, bench.shape, bench.dtype)
    rows = Examples(bench.ids, bench.shape["vocab_size"])
    flops = bench.flops(bench.shape, passes=3, predicted=0.5)
    narrow = {"weights": "bfloat16"} if bench.cuda else {}
    config = options(bench, trainable="all", optimizer="adafactor", **narrow)
    plain = plain_olmoe(OlmoeForCausalLM, model, bench.shape, "grouped_mm").train()
    plain.gradient_checkpointing_enable({"use_reentrant": False})
    made = optimizer_of(config.model_copy(update={"weights": "float32"}))
    assert made is not None
    optimizer = made[0](plain.parameters(), **made[1])
    base = plain_steps(bench, plain, rows, optimizer, batch=16, flops=flops)
    yield "plain, micro-batches of 16, checkpointing", base
    del plain, optimizer
    for recompute in (True, False):
        changed = config.model_copy(update={"activation_checkpointing": recompute})
        found = measured(bench, model, rows, changed, flops)
        model.zero_grad()
        yield f"ours, checkpointing {recompute}", found
        yield "ratio", {"times_as_fast": ratio(found, base)}
    profiled(bench, "all", model, rows, config)


def small(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """All weights of a small model with the contrast, fp32 weights and AdamW."""
    shape = bench.small
    model = built(bench, shape, torch.float32)
    rows = Pairs(Examples(bench.ids, shape["vocab_size"]))
    # Half of the tokens are those of copies, of which none is predicted.
    flops = bench.flops(shape, passes=3, predicted=0.25) * 2  # a rate counts clean tokens
    wide = 2 * bench.arguments.pass_tokens
    config = options(bench, ContrastiveConfig, trainable="all", pass_tokens=wide)
    yield "ours, contrastive", measured(bench, model, rows, config, flops)
    profiled(bench, "small", model, rows, config)


def agreement(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Losses of both paths over 20 steps of a small model, from equal weights, all trained."""
    shape = bench.small | {"num_hidden_layers": 4}
    rows = Examples(bench.ids[:400], shape["vocab_size"])
    for trained in ("router", "all"):
        losses = {}
        for way in ("packed", "plain"):
            kind = torch.float32 if trained == "all" else bench.dtype
            model = built(bench, shape, kind)
            config = options(bench, trainable=trained, max_steps=20, learning_rate=1e-3)
            if way == "plain":
                found = plainly(bench, model, rows, config)
            else:
                _, found = ours(bench, model, rows, config)
            losses[way] = found.losses
        worst = max(
            abs(a - b) / abs(b) for a, b in zip(losses["packed"], losses["plain"], strict=True)
        )
        yield trained, {"largest_relative_difference": worst, **losses}


def plainly(bench: Bench, model: Any, rows: Examples, config: WarmupConfig) -> Clock:  # noqa: ANN401
    """Train on the plain path, as where the packed one cannot run."""
    before = warmup_parts.obstacle
    warmup_parts.obstacle = lambda *_: "is switched off"
    try:
        return ours(bench, model, rows, config)[1]
    finally:
        warmup_parts.obstacle = before


def ratio(found: dict[str, Any], base: dict[str, Any]) -> float:
    """Return how many times as fast the first is."""
    quotient: float = found["tokens_per_second"] / base["tokens_per_second"]
    return quotient


if __name__ == "__main__":
    main()

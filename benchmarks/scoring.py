"""Tokens per second of scoring a pool with a Select-MoE router, beside transformers' own ways.

    python benchmarks/scoring.py --data data                 # OLMoE-1B-7B's shape, one 80 GB GPU
    python benchmarks/scoring.py --tiny --data data          # the same steps on a CPU

Random bf16 weights, the real pool's lengths and words; rates count real tokens only. The ceiling is
a bf16 matrix product measured in the same run. Two shares of it are printed: of the model's nominal
work (8 active experts, attention projections, gate), which is how the ways compare with each other,
and of the work really done: trash slots and what lies behind the last router are never computed.
A part that fails prints why, and the rest goes on. ``--only`` names those to run.
"""

import argparse
import os
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import scoring_check
import torch
from device import ceiling as product_rate
from device import describe, device_seconds
from pool_sample import spread_of, token_ids
from scoring_rates import SEED, Bench, model, olmoe, packed_decoder, packed_rate, padded_rate, score

from selectmoe_core.tokens import even


def main() -> None:
    """Run the parts in order of importance and print the table."""
    bench = Bench(parse())
    torch.manual_seed(SEED)
    for needed in (machine, lengths, ceiling, model):
        bench.parts.run(needed.__name__, partial(needed, bench))
    parts = {
        "fast": partial(fast, bench),
        "transformers": partial(transformers_default, bench),
        "eager": partial(eager_loop, bench),
        "check": partial(check, bench),
        "profile": partial(profile, bench),
        "steps": partial(each_step, bench),
        "variants": partial(variants, bench),
        "plain": partial(plain, bench),
    }
    slow = {"compiled": partial(compiled, bench)}  # two minutes, most of them for the compiler
    failed = bench.parts.run_all(parts | slow, bench.arguments.only or list(parts))
    table(bench)
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--json", type=Path, default=Path("scoring.jsonl"))
    parser.add_argument("--tiny", action="store_true", help="a small model, on the CPU")
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--tokens", type=int, default=650_000, help="real tokens of a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=230, help="begin no part after it")
    parser.add_argument("--only", nargs="*", help="the parts to run; by default all but 'compiled'")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.batch_tokens, arguments.tokens = 2048, 20_000
    return arguments


def machine(bench: Bench) -> dict[str, object]:
    """Name the device and the versions."""
    return {"machine": describe(bench.device, "triton"), "tiny": bench.tiny}


def lengths(bench: Bench) -> dict[str, object]:
    """Tokenise a sample of the pool with a byte-level BPE trained on it."""
    arguments = bench.arguments
    bench.ids, drawn = token_ids(arguments.data, arguments.tokens, bench.shape["vocab_size"], SEED)
    counts = np.array([len(row) for row in bench.ids])
    if drawn:
        return {"examples": len(counts), "tokens": int(counts.sum()), "drawn": True}
    return spread_of(counts) | {"mean": round(float(counts.mean()), 1)}


def ceiling(bench: Bench) -> dict[str, float]:
    """Measure a large matrix product and a large copy."""
    bench.ceiling = product_rate(bench.device, bench.dtype, device_seconds)
    source = torch.empty(2**30 if bench.cuda else 2**20, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copy = device_seconds(bench.device, lambda: target.copy_(source))
    return {"tflops": bench.ceiling / 1e12, "copy_tb_s": 2 * source.numel() / copy / 1e12}


def fast(bench: Bench) -> dict[str, object]:
    """The packed decoder: the first way that runs, the best first."""
    found: dict[str, object] = {}
    for steps, attention in (
        ("triton", "varlen"),
        ("triton", "flash"),
        ("triton", "padded"),
        ("torch", "flash"),
        ("torch", "padded"),
    ):
        if (steps, attention) != ("torch", "padded") and not bench.cuda:
            continue
        try:
            rate = packed_rate(bench, steps, attention, bench.arguments.batch_tokens)
        except Exception:
            print(f"  {steps}, {attention}: FAILED\n{traceback.format_exc()}", flush=True)
            found[f"{steps}, {attention}"] = traceback.format_exc()
            continue
        bench.way = (steps, attention)
        return found | rate
    raise RuntimeError("no way of the packed decoder runs here")


def transformers_default(bench: Bench) -> dict[str, object]:
    """Transformers' OLMoE, grouped_mm, not compiled, padded batches of 16 with their mask."""
    return padded_rate(bench, olmoe(bench, "grouped_mm"), 6 if bench.cuda else 1)


def eager_loop(bench: Bench) -> dict[str, object]:
    """Transformers' OLMoE with a loop over the experts, padded batches of 16."""
    return padded_rate(bench, olmoe(bench, "eager"), 5 if bench.cuda else 1)


def plain(bench: Bench) -> dict[str, object]:
    """Select-MoE's plain path: transformers' decoder, pairs flattened, no mask."""
    bench.decoder.set_experts_implementation("grouped_mm")
    return padded_rate(bench, bench.decoder, 5 if bench.cuda else 1, mask=False)


def compiled(bench: Bench) -> dict[str, object]:
    """Transformers' OLMoE, grouped_mm, compiled for dynamic shapes."""
    decoder = torch.compile(olmoe(bench, "grouped_mm"), dynamic=True)
    return padded_rate(bench, decoder, 6)


def variants(bench: Bench) -> dict[str, object]:
    """Other budgets, warps, attention and steps."""
    best = bench.arguments.batch_tokens
    found: dict[str, object] = {}
    todo = [
        ("triton", "varlen", 2 * best, 4),
        ("triton", "varlen", best // 2, 4),
        ("triton", "varlen", best, 8),
        ("triton", "varlen", 4 * best, 4),
        ("triton", "padded", best, 4),
        ("torch", "varlen", best // 2, 4),
    ]
    for steps, attention, budget, warps in todo if bench.cuda else ():
        if bench.left < 8:
            break
        name = f"{steps} steps, {attention}, {budget} tokens, {warps} warps"
        try:
            found[name] = packed_rate(bench, steps, attention, budget, warps)
        except Exception:
            print(f"  {name}: FAILED\n{traceback.format_exc()}", flush=True)
            found[name] = traceback.format_exc()
        torch.cuda.empty_cache()
    return found


def check(bench: Bench) -> dict[str, object]:
    """Each step and a whole layer against fp32 on fresh inputs, beside eager bf16's error."""
    way = bench.way
    decoder = packed_decoder(bench, *way)
    found = scoring_check.errors(bench.decoder, decoder, way[0], bench.device, bench.dtype)
    for name, (ours, theirs) in found.items():
        verdict = "ok" if ours <= 1.5 * theirs or ours < 1e-5 else "TOO LARGE"
        print(f"  {name:<28} {ours:.2e}  eager {theirs:.2e}  {verdict}", flush=True)
    return {name: {"ours": ours, "eager": theirs} for name, (ours, theirs) in found.items()}


def profile(bench: Bench) -> list[dict[str, object]]:
    """Where the device's time goes in three batches of the fast path."""
    from torch.profiler import ProfilerActivity, record_function

    decoder = packed_decoder(bench, *bench.way)
    counts = np.array([len(row) for row in bench.ids])
    batches = even(counts, bench.arguments.batch_tokens)[:3]
    score(bench, decoder, batches)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]
    with torch.profiler.profile(activities=kinds) as recorded, record_function("all"):
        begin = time.perf_counter()
        score(bench, decoder, batches)
        seconds = time.perf_counter() - begin
    key = "self_device_time_total" if bench.cuda else "self_cpu_time_total"
    events = sorted(recorded.key_averages(), key=lambda event: -getattr(event, key))[:18]
    rows = [
        {"name": event.key[:90], "ms": getattr(event, key) / 1e3, "calls": event.count}
        for event in events
    ]
    for row in rows:
        print(f"  {row['ms']:9.2f} ms {row['calls']:6}  {row['name']}", flush=True)
    print(f"  {seconds * 1e3:9.2f} ms wall, {sum(len(b) for b in batches)} examples", flush=True)
    return rows


def each_step(bench: Bench) -> dict[str, object]:
    """Time of each step by itself, and the memory rate it reaches."""
    steps = bench.way[0]
    found = {}
    tokens = bench.arguments.batch_tokens
    for warps in (4, 8) if steps == "triton" else (4,):
        decoder = packed_decoder(bench, steps, "padded", warps)
        work = scoring_check.calls(
            bench.decoder, decoder, bench.routing, tokens, bench.device, bench.dtype
        )
        for name, (call, size, flops) in work.items():
            seconds = device_seconds(bench.device, call, 10)
            found[f"{name}, {warps} warps"] = {
                "ms": seconds * 1e3,
                "tb_s": size / seconds / 1e12,
                "tflops": flops / seconds / 1e12,
            }
            print(
                f"  {warps} warps {name:<14} {seconds * 1e3:7.3f} ms {size / seconds / 1e12:6.2f} "
                f"TB/s {flops / seconds / 1e12:7.1f} TFLOP/s",
                flush=True,
            )
    return found


def table(bench: Bench) -> None:
    """Print the rates side by side."""
    rates = {
        name: value for name, value in bench.parts.found.items() if "tokens_per_second" in value
    }
    base = {name: rates[name]["tokens_per_second"] for name in rates}
    print(f"\n{bench.parts.found['machine']['machine']}")
    print(f"ceiling {bench.ceiling / 1e12:.0f} TFLOP/s; {bench.flops() / 1e9:.3f} GFLOP a token\n")
    print(f"{'way':<14}{'tokens/s':>12}{'nominal':>10}{'done':>8}{'fast is':>10}")
    for name, rate in rates.items():
        ratio = base.get("fast", 0.0) / rate["tokens_per_second"]
        print(
            f"{name:<14}{rate['tokens_per_second']:>12,.0f}{rate['share_nominal']:>10.1%}"
            f"{rate['share_of_work_done']:>8.1%}{ratio:>9.2f}x"
        )


if __name__ == "__main__":
    main()

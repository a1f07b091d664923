"""Tokens per second of LoRA on Llama-2-7B's shape, beside peft and transformers' Trainer.

    python benchmarks/lora.py --data data             # random bf16 weights, one 80 GB GPU
    python benchmarks/lora.py --tiny --data data      # the same steps on a CPU
    python benchmarks/lora.py --data data --only fast profile

Real examples of the pool; rates count real tokens, padding does not. ``plain`` is what peft's
documentation shows: padded batches of 16 in the order of the steps, bf16, checkpointing. The share
is of a bf16 matrix product measured in the same run, at 4 FLOP per parameter and token (frozen
weights have no gradient), whatever is recomputed. A part that fails prints why, the rest goes on;
each result goes to a file of JSON lines at once.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama_bench import command_line
from lora_arms import COMPARED, SEED, Bench, fast, fast_trainer, plain
from pool_sample import spread_of

from selectmoe_core.plugin.protocols import Job
from selectmoe_core.tokens.encoding import encode
from selectmoe_llama.batches import TrainingRows

CARD = 24 * 2**30
RESERVED = 2**29
"""What a driver and its context take of a 24 GiB card."""


def main() -> None:
    """Run the parts in order of importance and print the table."""
    arguments = parse()
    bench = Bench(arguments)
    bench.begin(model=partial(model, bench), data=partial(data, bench))
    parts = {
        "fast": partial(fast, bench, max_steps=9),
        "plain": partial(plain, bench),
        "losses": partial(losses, bench),
        "checkpointing": partial(fast, bench, max_steps=5, activation_checkpointing=True),
        "memory24": partial(memory24, bench),
        "profile": partial(profile, bench),
        "eager": partial(fast, bench, max_steps=4, compile=False),
        "tokens8192": partial(fast, bench, max_steps=5, pass_tokens=8192),
        "tokens16384": partial(fast, bench, max_steps=4, pass_tokens=16384),
    }
    asked = {"qlora": partial(qlora, bench)}  # needs bitsandbytes, and the disk 14 GB
    failed = bench.parts.run_all(parts | asked, arguments.only or list(parts))
    report(bench)
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, "lora", seconds=200)
    parser.add_argument("--profile", type=Path, default=Path("lora_profile.txt"))
    return parser.parse_args()


def model(bench: Bench) -> dict[str, Any]:
    """Build the model with random weights on the device itself."""
    bench.base = bench.random_base()
    return {"parameters": bench.parameters}


def data(bench: Bench) -> dict[str, Any]:
    """Encode a sample of the pool with a byte-level BPE trained on it."""
    every = list(bench.examples_of_data())
    if not every:
        raise bench.no_data()
    chosen = np.random.default_rng(SEED).permutation(len(every))[: 400 if bench.tiny else 4000]
    sample = [every[number] for number in chosen]
    tokenizer = bench.tokenizer_for(sample)
    bench.rows = TrainingRows(encode(sample, bench.work / "encoded", bench.chat, tokenizer))
    lengths = bench.rows.lengths
    return spread_of(lengths) | {"mean": round(float(lengths.mean()), 1)}


def losses(bench: Bench) -> dict[str, Any]:
    """Train as ``plain`` does and compare the losses."""
    found = fast(bench, **COMPARED)
    reference = bench.parts.found.get("plain", {}).get("losses")
    if reference:
        pairs = list(zip(reference, found["losses"], strict=True))
        found["largest_difference"] = round(max(abs(a - b) for a, b in pairs), 5)
        found["plain_and_fast"] = pairs
    return found


def memory24(bench: Bench) -> dict[str, Any]:
    """Train with checkpointing where the allocator may take no more than a 24 GiB card has."""
    if not bench.cuda:
        return fast(bench, max_steps=3, activation_checkpointing=True)
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((CARD - RESERVED) / whole)
    try:
        return fast(bench, max_steps=4, activation_checkpointing=True)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def qlora(bench: Bench) -> dict[str, Any]:
    """Train with the frozen weights in 4 bits and checkpointing."""
    options = {"quantization": "nf4", "activation_checkpointing": True}
    return fast(bench, max_steps=4, compile=False, **options)


def profile(bench: Bench) -> dict[str, Any]:
    """Write where one step's time goes."""
    from torch.profiler import ProfilerActivity, schedule
    from torch.profiler import profile as profiler

    config = bench.options(max_steps=4)
    trainer, clock = fast_trainer(bench, config)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * bench.cuda
    key = "cuda_time_total" if bench.cuda else "cpu_time_total"
    with profiler(activities=kinds, schedule=schedule(wait=2, warmup=1, active=1)) as watched:
        watch = clock.step

        def step(number: int, values: Any) -> None:  # noqa: ANN401
            watch(number, values)
            watched.step()

        trainer.job = Job(**vars(trainer.job) | {"metrics": step})
        trainer.train()
        averages = watched.key_averages()
    by_device = averages.table(sort_by=key, row_limit=45)
    own = averages.table(sort_by=f"self_{key}", row_limit=70, max_name_column_width=110)
    bench.arguments.profile.write_text(f"{own}\n\n{by_device}", encoding="utf-8")
    return {"file": str(bench.arguments.profile), "step_seconds": clock.times[-1] - clock.times[-2]}


def report(bench: Bench) -> None:
    """Print the table."""
    baseline = bench.parts.found.get("plain", {}).get("tokens_per_second")
    print(f"\n{'arm':<16}{'tokens/s':>10}{'ceiling':>9}{'x plain':>9}{'peak GiB':>10}")
    for name, found in bench.parts.found.items():
        if "tokens_per_second" not in found:
            continue
        rate = found["tokens_per_second"]
        ratio = f"{rate / baseline:.2f}" if baseline else "-"
        share, peak = f"{found['share_of_ceiling']:.1%}", found.get("peak_gib", "-")
        print(f"{name:<16}{rate:>10,}{share:>9}{ratio:>9}{peak!s:>10}")


if __name__ == "__main__":
    main()

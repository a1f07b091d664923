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
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import ceiling as product_rate
from device import hardware, versions
from lora_arms import COMPARED, SEED, Bench, fast, fast_trainer, plain
from pool_sample import conversations, spread_of, tokenizer_of
from random_weights import random_model
from transformers import LlamaConfig, LlamaForCausalLM

from selectmoe_core import Example, Message
from selectmoe_core.data.examples import content_id
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
    for needed in (machine, ceiling, model, data):
        bench.parts.run(needed.__name__, partial(needed, bench))
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    folder = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=folder)
    parser.add_argument("--json", type=Path, default=Path("lora.jsonl"))
    parser.add_argument("--profile", type=Path, default=Path("lora_profile.txt"))
    parser.add_argument("--tiny", action="store_true", help="a small model, on the CPU")
    parser.add_argument("--only", nargs="*", help="parts to run; by default all")
    parser.add_argument("--seconds", type=float, default=200, help="begin no part after it")
    return parser.parse_args()


def machine(bench: Bench) -> dict[str, Any]:
    """Name the machine and the versions."""
    return {
        "machine": hardware(bench.device),
        "versions": versions("torch", "transformers", "peft"),
    }


def ceiling(bench: Bench) -> dict[str, Any]:
    """Measure a large matrix product."""
    bench.ceiling = product_rate(bench.device, bench.dtype)
    return {"tflops": round(bench.ceiling / 1e12, 1)}


def model(bench: Bench) -> dict[str, Any]:
    """Build the model with random weights on the device itself."""
    config = LlamaConfig(**bench.shape, pad_token_id=0)
    bench.base = random_model(LlamaForCausalLM, config, bench.device, bench.dtype)
    bench.parameters = sum(weight.numel() for weight in bench.base.parameters())
    return {"parameters": bench.parameters}


def data(bench: Bench) -> dict[str, Any]:
    """Encode a sample of the pool with a byte-level BPE trained on it."""
    every = [
        Example(content_id(messages).hex(), source, messages)
        for source, turns in conversations(bench.arguments.data)
        for messages in [tuple(Message(turn["role"], turn["content"]) for turn in turns)]
    ]
    if not every:
        raise SystemExit(f"no pool in {bench.arguments.data}: name its folder with --data")
    chosen = np.random.default_rng(SEED).permutation(len(every))[: 400 if bench.tiny else 4000]
    sample = [every[number] for number in chosen]
    texts = (message.content for example in sample for message in example.messages)
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = tokenizer_of(texts, bench.shape["vocab_size"], **special)
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

"""Examples per second of LoRA gradients on Llama-2-7B's shape, beside LESS's 48 A100-hours.

    python benchmarks/gradients.py --data data          # random bf16 weights, one 80 GB GPU
    python benchmarks/gradients.py --tiny --data data   # the same parts on a CPU
    python benchmarks/gradients.py --data data --only pool naive

Real examples of the pool, drawn so that each source has the share that it has in LESS's pool. Each
is preconditioned with Adam's moments and projected to 8,192 numbers, as one pass over the pool for
one checkpoint does. ``pass`` is the same forward and backward pass without gradients of weights,
``naive`` autograd on the LoRA weights one example at a time with the same projection. The moments
and the LoRA weights are random numbers. A part that fails prints why, and the others go on.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from gradients_model import DIMENSIONS, Bench, moments_of, naive_vector, no_gradients
from llama_bench import command_line
from torch.nn.functional import cosine_similarity

from selectmoe_core.models import Batch, padded, within_budget
from selectmoe_gradient.projection import Rademacher

LESS_EXAMPLES, CHECKPOINTS, LESS_HOURS = 270_679, 4, 48
"""LESS's pool, its checkpoints, and the hours that the gradients took on an A100 (its table 2)."""
SHARE = 1 / 6
"""What this may take of LESS's hours."""


def main() -> None:
    """Run the parts in order of importance and print the table."""
    arguments = parse()
    bench = Bench(arguments)
    bench.begin(model=partial(model, bench), data=partial(data, bench))
    parts = {
        "pool": partial(pool, bench),
        "naive": partial(naive, bench),
        "pass": partial(pass_alone, bench),
        "target": partial(pool, bench, plain=True),
        "eager": partial(pool, bench, compiled=False),
        "dense": partial(dense, bench),
    }
    failed = bench.parts.run_all(parts, arguments.only or list(parts))
    report(bench)
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, "gradients", seconds=150)
    parser.add_argument("--examples", type=int, default=1024, help="of each timed part")
    parser.add_argument("--tokens", type=int, default=4096, help="of a pass, with padding")
    return parser.parse_args()


def model(bench: Bench) -> dict[str, Any]:
    """Build the model with its LoRA weights on the device itself."""
    bench.build()
    return {
        "shape": {name: bench.shape[name] for name in ("hidden_size", "num_hidden_layers")},
        "parameters": bench.parameters,
        "lora_rank": bench.rank,
        "lora_parameters": bench.lora_parameters,
    }


def data(bench: Bench) -> dict[str, Any]:
    """Draw examples and encode them."""
    return bench.draw()


def pool(bench: Bench, *, plain: bool = False, compiled: bool | None = None) -> dict[str, Any]:
    """Project the gradients of the drawn examples, preconditioned unless ``plain``."""
    compiled = bench.cuda if compiled is None else compiled
    found = bench.gradients(compiled=compiled)
    directions = None if plain else moments_of(found, bench.device)
    return timed(bench, lambda batch: found.vectors(batch, directions))


def pass_alone(bench: Bench) -> dict[str, Any]:
    """Run forward and backward alone, with gradients of activations."""
    return timed(bench, partial(no_gradients, bench.gradients(compiled=False)))


def naive(bench: Bench) -> dict[str, Any]:
    """Take the gradient of one example after the other, and compare with a batch of them."""
    found = bench.gradients(compiled=False)
    directions = moments_of(found, bench.device)
    rows = bench.middle(18 if bench.cuda else 6)
    batch = padded(rows, bench.ids, bench.masks, bench.device)
    expected = found.vectors(batch, directions)
    rest = [
        padded(rows[at : at + 1], bench.ids, bench.masks, bench.device) for at in range(len(rows))
    ]
    vectors = [naive_vector(found, rest[at], directions) for at in (0, 1)]
    bench.wait()
    start = time.perf_counter()
    vectors += [naive_vector(found, one, directions) for one in rest[2:]]
    bench.wait()
    seconds = time.perf_counter() - start
    same = cosine_similarity(torch.stack(vectors), expected)
    places = sum(one.ids.numel() for one in rest[2:])
    return rates(bench, len(rows) - 2, seconds, places) | {
        "least_cosine_with_batch": round(float(same.min()), 5)
    }


def dense(bench: Bench) -> dict[str, Any]:
    """Project one weight's gradients with a dense matrix, and estimate it for all weights."""
    found = bench.gradients(compiled=False)
    name, size = next(iter(found.sizes.items()))
    projection, examples = Rademacher(1, size, DIMENSIONS), 16
    gradients = torch.randn(examples, size, device=bench.device, dtype=bench.dtype)
    projection.project(gradients, None)
    bench.wait()
    start = time.perf_counter()
    projection.project(gradients, None)
    bench.wait()
    seconds = (time.perf_counter() - start) * bench.lora_parameters / size
    return {"weight": name, "examples_per_second": round(examples / seconds, 3)}


def timed(bench: Bench, work: Any) -> dict[str, Any]:  # noqa: ANN401
    """Time a call for each batch, after one for the longest, the shortest and a middle batch."""
    every = list(batches(bench))
    for number in sorted({0, len(every) // 2, len(every) - 1}):
        work(every[number])
    bench.wait()
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for batch in every:
        vectors = work(batch)
    bench.wait()
    seconds = time.perf_counter() - start
    if vectors is not None and not bool(vectors.isfinite().all()):
        raise ValueError("a vector is not finite")
    places = sum(batch.ids.numel() for batch in every)
    return rates(bench, len(bench.ids), seconds, places)


def batches(bench: Bench) -> Iterator[Batch]:
    """Yield the drawn examples in padded batches of about the same length."""
    for rows in within_budget(bench.lengths, bench.arguments.tokens):
        yield padded(rows, bench.ids, bench.masks, bench.device)


def rates(bench: Bench, examples: int, seconds: float, places: int) -> dict[str, Any]:
    """Return what is printed of a measured time; ``places`` are tokens with padding."""
    rate = examples / seconds
    hours = LESS_EXAMPLES * CHECKPOINTS / rate / 3600
    found = {
        "examples_per_second": round(rate, 2),
        "places_per_second": round(places / seconds),
        "gpu_hours": round(hours, 2),
        "of_less": round(hours / LESS_HOURS, 4),
        "share_of_ceiling": round(4 * bench.parameters * places / seconds / bench.ceiling, 4),
        "examples": examples,
        "seconds": round(seconds, 2),
    }
    if bench.cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def report(bench: Bench) -> None:
    """Print the table."""
    slow = bench.parts.found.get("naive", {}).get("examples_per_second")
    print(
        f"\n{'part':<10}{'examples/s':>12}{'GPU-hours':>11}{'of LESS':>9}{'x naive':>9}{'GiB':>7}"
    )
    for name, found in bench.parts.found.items():
        if "gpu_hours" in found:
            rate = found["examples_per_second"]
            ratio = f"{rate / slow:.1f}" if slow else "-"
            peak = str(found.get("peak_gib", "-"))
            print(
                f"{name:<10}{rate:>12,}{found['gpu_hours']:>11,}{found['of_less']:>9.1%}"
                f"{ratio:>9}{peak:>7}"
            )
    hours = bench.parts.found.get("pool", {}).get("gpu_hours")
    if hours and bench.cuda:
        word = "within" if hours <= LESS_HOURS * SHARE else "OVER"
        print(f"{hours} GPU-hours: {word} {LESS_HOURS * SHARE:.0f}, a sixth of {LESS_HOURS}")


if __name__ == "__main__":
    main()

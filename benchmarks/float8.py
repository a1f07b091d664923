r"""Would float8 products make scoring faster, and would its ranks stay?

    python benchmarks/float8.py --data data                 # OLMoE-1B-7B's shape, a Hopper GPU
    python benchmarks/float8.py --tiny --data data          # ranks alone, on a CPU

selectmoe has no such option. This script puts float8 products of the experts into the packed
decoder from outside: weights and activations are rounded to e4m3, each row with a scale of its own.
``ranks`` compares the statistics of real examples with those of bf16 products; without a Hopper GPU
the rounding is real and the product is in float32. ``rates`` gives tokens a second, beside bf16 in
the same run: ``rounded`` with the rounding as torch operations, and ``free`` with rounding that
costs no more than a cast, a bound that no kernel can pass.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import scoring_rates
import scoring_run
import torch
from device import ceiling, describe, device_for
from parts import Parts
from pool_sample import token_ids
from torch import Tensor
from torch.nn import functional

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
BATCH_TOKENS = 32768

EXACT = functional.grouped_mm

Product = Callable[..., Tensor]


def main() -> None:
    """Run the parts and print the figures."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(describe(device_for(tiny=arguments.tiny), "triton"), flush=True)
    parts = {"ranks": partial(ranks, arguments)}
    if not arguments.tiny:
        parts["rates"] = partial(rates, arguments)
    sys.exit(1 if Parts(arguments.json).run_all(parts, arguments.only or None) else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--work", type=Path, default=Path("outputs/float8"))
    parser.add_argument("--json", type=Path, default=Path("float8.jsonl"))
    parser.add_argument("--selector", type=Path, help="a warmed-up Select-MoE folder, for ranks")
    parser.add_argument("--rank-examples", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=650_000, help="real tokens of a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=["ranks", "rates"])
    parser.add_argument("--tiny", action="store_true", help="few examples, on the CPU")
    arguments = parser.parse_args()
    arguments.data, arguments.work = arguments.data.resolve(), arguments.work.resolve()
    if arguments.tiny:
        arguments.rank_examples = min(arguments.rank_examples, 200)
    arguments.seconds = float("inf")
    return arguments


# ----------------------------------------------------------------------------------------- products


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows in e4m3 and their scales: ``[..., K]`` gives ``[..., K]`` and ``[...]``."""
    scale = rows.abs().amax(dim=-1).float().clamp(min=1e-12) / LARGEST
    return (rows.float() / scale[..., None]).to(E4M3), scale


class Float8:
    """Stands for ``functional.grouped_mm``; the weights are rounded once.

    Attributes:
        calls: how often it multiplied.
    """

    def __init__(self, *, hopper: bool, free: bool = False) -> None:
        """Choose how.

        Args:
            hopper: multiply in float8; otherwise the rounded values in float32.
            free: cast the activations without a scale of their own.
        """
        self._multiply = self._fast if hopper else self._plain
        self._free = free
        self.calls = 0
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, rows: Tensor, weight: Tensor, *, offs: Tensor) -> Tensor:
        """Return ``[M, N]`` for rows ``[M, K]`` and weights ``[E, K, N]``, in the rows' dtype."""
        self.calls += 1
        key = weight.data_ptr()
        if key not in self._weights:
            self._weights[key] = rounded(weight.transpose(1, 2))
        if self._free:
            small, scale = rows.to(E4M3), torch.ones(len(rows), device=rows.device)
        else:
            small, scale = rounded(rows)
        return self._multiply(small, scale, *self._weights[key], offs).to(rows.dtype)

    def _fast(
        self, rows: Tensor, of_rows: Tensor, weight: Tensor, of_weight: Tensor, offs: Tensor
    ) -> Tensor:
        row_wise = functional.ScalingType.RowWise
        return functional.scaled_grouped_mm(
            rows,
            weight.transpose(1, 2),
            of_rows,
            row_wise,
            of_weight,
            row_wise,
            offs=offs,
            output_dtype=torch.bfloat16,
            use_fast_accum=True,
        )

    def _plain(
        self, rows: Tensor, of_rows: Tensor, weight: Tensor, of_weight: Tensor, offs: Tensor
    ) -> Tensor:
        wide = rows.float() * of_rows[:, None]
        back = (weight.float() * of_weight[..., None]).transpose(1, 2)
        return EXACT(wide, back, offs=offs)


@contextmanager
def products(product: Product) -> Iterator[None]:
    """Let everything multiply the experts' weights in another way."""
    before = functional.grouped_mm
    functional.grouped_mm = product
    try:
        yield
    finally:
        functional.grouped_mm = before


def hopper() -> bool:
    """Whether this machine multiplies e4m3 rows with scales of their own."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)


# -------------------------------------------------------------------------------------------- parts


def ranks(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the statistics of float8 products with those of bf16 ones."""
    shard, encoded, folder = scoring_run.real_examples(arguments)
    device = device_for(tiny=arguments.tiny)
    way = "packed" if device == "cuda" else "grouped_mm"
    score = partial(scoring_run.statistics_of, folder, shard, encoded, device, "bfloat16", way)
    wanted, kernel = score()
    product = Float8(hopper=hopper() and not arguments.tiny)
    with products(product):
        found, _ = score()
    assert product.calls, "no product was replaced"
    agree = {name: scoring_run.spearman(found[name], wanted[name]) for name in wanted}
    good = agree["trash_mass"] >= 0.999
    verdict = "ok" if good else f"TOO LOW: {agree['trash_mass']:.5f}"
    return {"examples": len(shard.rows), "kernel": kernel, **agree, "verdict": verdict}


def rates(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure bf16, float8, and float8 with rounding for nothing."""
    bench = scoring_rates.Bench(arguments)
    bench.ceiling = ceiling(bench.device, bench.dtype)
    scoring_rates.model(bench)
    bench.ids, _ = token_ids(
        arguments.data, arguments.tokens, bench.shape["vocab_size"], scoring_rates.SEED
    )
    measure = partial(scoring_rates.packed_rate, bench, "triton", "varlen", BATCH_TOKENS)
    base = dict(measure())
    yield "bf16", base
    ways = {"rounded": Float8(hopper=True), "free": Float8(hopper=True, free=True)}
    for name, product in ways.items():
        with products(product):
            rate = dict(measure())
        ratio = rate["tokens_per_second"] / base["tokens_per_second"]
        yield name, rate | {"times_bf16": ratio, "verdict": "ok" if ratio >= 1.3 else "BELOW 1.3"}
        product._weights.clear()  # noqa: SLF001 - room for the next


if __name__ == "__main__":
    main()

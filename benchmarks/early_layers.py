"""How well ``layers = "first:N"`` ranks like all layers, and what it saves.

    python benchmarks/early_layers.py                                    # bundled nano model
    python benchmarks/early_layers.py --selector MODEL --pool POOL       # any warmed model and pool
    python benchmarks/early_layers.py --tiny                             # a try on the CPU

``contrastive`` and ``constraint`` take pool and warmed model of the recipes ``default`` and
``constraint`` (made on the spot, as ``selectmoe run`` makes them); ``given`` takes the folder of a
warmed Select-MoE and that of a pool artifact (``OUTPUTS/store/pool-...``). For each N: Spearman's
correlation with the score over all layers, the share of its best 5 % that is found, the share of
the work (FLOPs, causal attention included), and the speed-up over all layers in the same run.
Scores of N layers are means of one pass over all of them; that the option gives the same is
checked. Each part prints a table and appends it to ``--json`` as a line. The recipes' warm-ups take
60 and 20 s on idle cores, the rest seconds.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SELECTMOE, call
from parts import Parts

from selectmoe_core.cost import Shape, forward_flops
from selectmoe_core.data.pool import Pool
from selectmoe_core.models.models import ModelRef, Models
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.protocols import Inputs, Job, Shard
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.report.distribution import spearman
from selectmoe_core.stages.scoring.pipeline import Stretch
from selectmoe_core.tokens.chat import ChatConfig, ChatFormat
from selectmoe_core.tokens.encoding import Encoded
from selectmoe_core.tokens.tokenize import encode_pool
from selectmoe_router.config import RouterConfig
from selectmoe_router.scorer import RouterScorer, RouterShardScorer

RECIPES = {"contrastive": "default", "constraint": "constraint"}
TOP = 0.05
AGREE = 2e-3
"""Scores of a cut model may differ by so much of their spread: bf16 products of another size."""


def main() -> None:
    """Measure the parts that are wanted."""
    arguments = parse()
    print(f"device {arguments.device}, torch {torch.__version__}", flush=True)
    parts = {name: partial(of_recipe, arguments, name) for name in RECIPES}
    given = {"given": partial(of_folders, arguments, arguments.selector, arguments.pool)}
    wanted = arguments.only or (["given"] if arguments.selector else list(RECIPES))
    raise SystemExit(Parts(arguments.json).run_all(parts | given, wanted))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--selector", type=Path, help="a folder with a warmed Select-MoE")
    parser.add_argument("--pool", type=Path, help="the folder of a pool artifact")
    parser.add_argument("--statistic", default="trash_mass")
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument(
        "--examples", type=int, default=20_000, help="at most, from the pool's start"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=Path("outputs/early-layers"))
    parser.add_argument("--json", type=Path, default=Path("early_layers.jsonl"))
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, "given"], default=[])
    parser.add_argument("--tiny", action="store_true", help="warm up for 3 steps on 300 examples")
    arguments = parser.parse_args()
    if (arguments.selector is None) != (arguments.pool is None):
        parser.error("--selector and --pool belong together")
    if arguments.tiny:
        arguments.device, arguments.repeats = "cpu", 1
    return arguments


def of_recipe(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Make a shipped recipe's pool and warmed model, and measure with them."""
    outputs = arguments.work / name
    small = ["pool.examples=300", "warmup.max_steps=3"] if arguments.tiny else []
    command = [*SELECTMOE, "run", RECIPES[name], *small, "--until", "warmup", "--quiet"]
    call([*command, "--outputs", str(outputs), "--device", "cpu"])
    [selector] = outputs.glob("store/warmup-*/model")
    [pool] = (path.parent for path in outputs.glob("store/pool-*/pool.arrow"))
    return of_folders(arguments, selector, pool)


def of_folders(arguments: argparse.Namespace, selector: Path, folder: Path) -> dict[str, Any]:
    """Measure with a warmed model and a pool."""
    pool, models = Pool.open(folder), Registry(load_plugins()).models
    tokenizer = models.tokenizer(ModelRef(str(selector)))
    chat, tokens = (
        ChatFormat(ChatConfig(max_length=arguments.max_length)),
        arguments.work / "tokens",
    )
    shutil.rmtree(tokens, ignore_errors=True)
    encoded = encode_pool(pool, tokens, chat, tokenizer)
    count = min(len(pool), arguments.examples)
    shard = Shard(0, np.arange(count), Stretch(pool, 0, count))
    bench = Bench(arguments, selector, models, encoded, shard)
    return bench.measured()


class Bench:
    """One warmed model over one stretch of a pool."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        selector: Path,
        models: Models,
        encoded: Encoded,
        shard: Shard,
    ) -> None:
        self.arguments = arguments
        self.selector = selector
        self.models = models
        self.encoded = encoded
        self.shard = shard

    def measured(self) -> dict[str, Any]:
        """Return a row for each number of layers, and print them."""
        with self.scorer("all") as scorer:
            whole = scorer.score(self.shard)
            seconds, packed = self.seconds(scorer), bool(scorer._packed)  # noqa: SLF001
        kept = np.isfinite(whole.score)
        layers, score = whole.details["layers"][kept], whole.score[kept]
        count, best = layers.shape[1], max(1, round(TOP * len(score)))
        top = set(np.argsort(-score, kind="stable")[:best].tolist())
        rows = []
        for number in range(1, count + 1):
            early = layers[:, :number].mean(axis=1)
            found = top & set(np.argsort(-early, kind="stable")[:best].tolist())
            took = seconds if number == count else self.cut(number, early, kept)
            row = {
                "layers": number,
                "spearman": spearman(early, score),
                "top_overlap": len(found) / best,
                "share_of_work": self.work(number, packed=packed) / self.work(count, packed=packed),
                "speed_up": seconds / took,
            }
            print("  " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
            rows.append(row)
        tokens = int(self.encoded.lengths[: len(self.shard.rows)].sum())
        return {
            "kernel": whole.kernel,
            "examples": len(score),
            "top": best,
            "tokens_per_second": tokens / seconds,
            "rows": rows,
        }

    @contextmanager
    def scorer(self, layers: str) -> Iterator[RouterShardScorer]:
        """Open a scorer that reads so many layers."""
        config = RouterConfig(statistic=self.arguments.statistic, layers=layers)
        device = self.arguments.device
        job = Job(
            seed=0,
            device=device,
            dtype="float32" if device == "cpu" else "bfloat16",
            inputs=Inputs(model=ModelRef(str(self.selector))),
            models=self.models,
            encoded=lambda _: self.encoded,
        )
        with RouterScorer(config).open(job) as opened:
            yield opened

    def seconds(self, scorer: RouterShardScorer) -> float:
        """Return the median time of scoring the shard once more."""
        times = []
        for _ in range(self.arguments.repeats):
            begin = time.perf_counter()
            scorer.score(self.shard)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def cut(self, number: int, wanted: np.ndarray, kept: np.ndarray) -> float:
        """Score with the option itself, check its scores, and return how long it takes."""
        with self.scorer(f"first:{number}") as scorer:
            found = scorer.score(self.shard).score[kept]
            worst = float(np.abs(found - wanted).max())
            if worst > AGREE * max(float(wanted.std()), 1e-3):
                raise RuntimeError(f"first:{number} gives other scores than its layers: {worst}")
            return self.seconds(scorer)

    def work(self, number: int, *, packed: bool) -> float:
        """Return FLOPs a token of so many layers; the packed path leaves out the last experts."""
        config = self.models.config(ModelRef(str(self.selector)))
        assert config is not None
        shape = Shape.of(config)
        length = float(self.encoded.lengths[: len(self.shard.rows)].mean())
        flops = forward_flops(replace(shape, layers=number), 1.0, length, head=False)
        return flops - (2.0 * shape.expert * shape.top_k if packed else 0.0)


if __name__ == "__main__":
    main()

"""Tokens per second of the embedders, beside the plain forward pass and the scoring of a router.

    python benchmarks/embedding.py --data data           # random bf16 weights, one 80 GB GPU
    python benchmarks/embedding.py --tiny --data data    # the same parts on a CPU
    python benchmarks/embedding.py --data data --only dense_plain dense_states

Dense: Llama-2-7B's shape. ``dense_plain`` is the decoder alone on the batches that the embedder
makes, ``dense_states`` the embedder ``hidden-states`` from token ids to vectors on the host.
Mixture of experts: OLMoE-1B-7B's shape with trash cans, packed. ``moe_plain`` is all layers and the
final norm, ``moe_states`` and ``moe_router_states`` the embedder with position and router weights,
``moe_scoring`` the router scorer's pass with its statistics, ``moe_profile`` the embedder
``router-profile``. Rates count real tokens, the pool's lengths and words; the best of the repeats.
``check`` compares vectors of both ways to read with transformers' hidden states. Goals: states at
least .9 of the plain pass, profiles at least .9 of scoring. A part that fails prints why.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from device import describe, wait
from parts import Parts
from pool_sample import spread_of, token_ids
from random_weights import random_model
from scoring_rates import SEED, TRASH, OnDevice, joined
from shapes import LLAMA, OLMOE, TINY, TINY_EXPERTS

from selectmoe_core import ModelRef, Shard
from selectmoe_core.models import OnItsWay, padded, within_budget
from selectmoe_core.tokens import even, moved, packed
from selectmoe_core.tokens.encoding import Joined
from selectmoe_embed.config import HiddenStatesConfig, RouterProfileConfig
from selectmoe_embed.hidden_states import StateReader
from selectmoe_embed.reading import ShardReader
from selectmoe_embed.router_profile import ProfileReader
from selectmoe_router.packed import PackedMeans
from selectmoe_router.reduction import Routing

GOAL = 0.9
REF = ModelRef("random")
COMPARED = (
    ("dense_states", "dense_plain"),
    ("moe_states", "moe_plain"),
    ("moe_router_states", "moe_plain"),
    ("moe_profile", "moe_scoring"),
)


class Bench(OnDevice):
    """What the parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.parts = Parts(arguments.json, after=self.free, seconds=arguments.seconds)
        self.tokens = Joined(np.empty(0), np.empty(0), np.zeros(1, np.int64))
        self.budget = 1024 if self.tiny else 32768
        self.model: Any = None
        self.kind = ""

    def free(self) -> None:
        """Give memory that is no longer used back to the GPU."""
        if self.cuda:
            torch.cuda.empty_cache()

    def shape(self, kind: str) -> dict[str, Any]:
        """Return the sizes of a model."""
        if kind == "dense":
            return LLAMA | (TINY if self.tiny else {})
        return OLMOE | (TINY | TINY_EXPERTS if self.tiny else {})

    def have(self, kind: str) -> None:
        """Build a model with random weights, unless it is there; the other one goes."""
        if self.kind == kind:
            return
        self.model = None
        self.free()
        self.kind = kind
        self.model = self.made(kind)

    def made(self, kind: str) -> Any:  # noqa: ANN401
        """Return a model of random weights."""
        shape = self.shape(kind)
        if kind == "dense":
            from transformers import LlamaConfig, LlamaForCausalLM

            config, built = LlamaConfig(**shape, pad_token_id=0), LlamaForCausalLM
        else:
            from selectmoe_olmoe.model.modeling import SelectMoeConfig, SelectMoeForCausalLM

            config = SelectMoeConfig(**shape, num_trash_experts=TRASH, pad_token_id=0)
            built = SelectMoeForCausalLM
        config._attn_implementation = "sdpa"  # noqa: SLF001
        model = random_model(built, config, self.device, self.dtype).eval()
        return model.requires_grad_(requires_grad=False)

    def timed(self, work: Callable[[], object]) -> dict[str, Any]:
        """Return the real tokens per second of some work over all examples."""
        work()
        times = []
        for _ in range(self.arguments.repeats):
            wait(self.device)
            begin = time.perf_counter()
            work()
            wait(self.device)
            times.append(time.perf_counter() - begin)
        found = {"tokens_per_second": round(len(self.tokens.ids) / min(times))}
        if self.cuda:
            found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        return found | {"spread": round((max(times) - min(times)) / min(times), 3)}

    def embedded(self, reader: Any) -> np.ndarray:  # noqa: ANN401
        """Return the vectors of all examples, as the stage makes them."""
        shown = SimpleNamespace(joined=lambda _: self.tokens)
        job: Any = SimpleNamespace(device=self.device, encoded=lambda _: shown)
        rows = np.arange(len(self.tokens.lengths))
        return ShardReader(job, None, reader, self.budget).embed(Shard(0, rows, ()))


def machine(bench: Bench) -> dict[str, object]:
    """Name the device and the versions."""
    return {"machine": describe(bench.device, "triton"), "tiny": bench.tiny}


def lengths(bench: Bench) -> dict[str, object]:
    """Tokenise a sample of the pool."""
    vocabulary = min(bench.shape(kind)["vocab_size"] for kind in ("dense", "moe"))
    ids, drawn = token_ids(bench.arguments.data, bench.arguments.tokens, vocabulary, SEED)
    bench.tokens = joined(ids)
    return spread_of(bench.tokens.lengths) | {"drawn": drawn}


def dense_plain(bench: Bench) -> dict[str, object]:
    """Run the decoder over the batches that the embedder makes, and keep nothing."""
    bench.have("dense")
    ids = np.split(bench.tokens.ids, bench.tokens.starts[1:-1])
    masks = [np.ones(len(row), dtype=bool) for row in ids]

    @torch.inference_mode()
    def work() -> None:
        for rows in within_budget(bench.tokens.lengths, bench.budget):
            batch = padded(rows, ids, masks, bench.device)
            bench.model.model(input_ids=batch.ids, use_cache=False)

    return bench.timed(work)


def dense_states(bench: Bench) -> dict[str, object]:
    """Embed with ``hidden-states``."""
    bench.have("dense")
    reader = StateReader(bench.model, REF, HiddenStatesConfig())
    return bench.timed(lambda: bench.embedded(reader))


def moe_plain(bench: Bench) -> dict[str, object]:
    """Run all layers over packed batches, and keep nothing."""
    decoder = _decoder(bench)

    def work() -> None:
        for batch in _batches(bench):
            shape = batch.positions, batch.starts, batch.longest
            decoder.states(batch.ids, *shape, bench.shape("moe")["num_hidden_layers"])

    return bench.timed(work)


def moe_states(bench: Bench, pooling: Any = "position") -> dict[str, object]:  # noqa: ANN401
    """Embed with ``hidden-states``."""
    _decoder(bench)
    reader = StateReader(bench.model, REF, HiddenStatesConfig(pooling=pooling))
    return bench.timed(lambda: bench.embedded(reader)) | {"packed": reader.packs}


def moe_scoring(bench: Bench) -> dict[str, object]:
    """Score with the router's statistics."""
    decoder, shape = _decoder(bench), bench.shape("moe")
    routing = Routing(shape["num_experts"], TRASH, shape["num_experts_per_tok"])

    def work() -> None:
        taken = []
        for batch in _batches(bench):
            means = PackedMeans(batch, routing, features=False)
            place = batch.positions, batch.starts, batch.longest
            decoder.read(batch.ids, *place, range(shape["num_hidden_layers"]), means.take)
            taken.append(OnItsWay(means.values))
        for values in taken:
            values.numpy()

    return bench.timed(work)


def moe_profile(bench: Bench) -> dict[str, object]:
    """Embed with ``router-profile``."""
    _decoder(bench)
    reader = ProfileReader(bench.model, REF, RouterProfileConfig(), bench.device)
    return bench.timed(lambda: bench.embedded(reader)) | {"packed": reader.packs}


@torch.inference_mode()
def check(bench: Bench) -> dict[str, object]:
    """Compare vectors of some examples with transformers' hidden states, one by one."""
    whole, found = bench.tokens, {}
    rows = np.argsort(whole.lengths)[:: max(1, len(whole.lengths) // 16)][:16]
    bench.tokens = joined([whole.ids[whole.places(np.array([row]))] for row in rows])
    try:
        for kind in ("moe", "dense"):
            bench.have(kind)
            plain = [_plain(bench, row) for row in range(len(rows))]
            vectors = bench.embedded(StateReader(bench.model, REF, HiddenStatesConfig()))
            near = torch.cosine_similarity(torch.tensor(vectors), torch.stack(plain), dim=1)
            found[f"{kind}_least_cosine"] = round(float(near.min()), 5)
            if near.min() < 0.99:
                raise AssertionError(f"{kind}: vectors differ from transformers': {near}")
    finally:
        bench.tokens = whole
    return found


def _plain(bench: Bench, row: int) -> torch.Tensor:
    ids = torch.from_numpy(bench.tokens.ids[bench.tokens.places(np.array([row]))].astype(np.int64))
    states = bench.model.model(input_ids=ids[None].to(bench.device), use_cache=False)
    values = states.last_hidden_state[0].float().cpu()
    weights = torch.arange(1, len(values) + 1, dtype=torch.float32)
    return (values * weights[:, None]).sum(0) / weights.sum()


def _decoder(bench: Bench) -> Any:  # noqa: ANN401
    """Return the packed decoder of the mixture of experts; on a CPU with torch's steps."""
    bench.have("moe")
    decoder = bench.model.model
    if not bench.cuda:
        from selectmoe_olmoe.fused.ops import TorchSteps
        from selectmoe_olmoe.fused.scoring_pass import PackedDecoder

        made = PackedDecoder(decoder, TorchSteps())
        decoder.packed_decoder = lambda: (made, made.kernel)
    found, reason = decoder.packed_decoder()
    if found is None:
        raise RuntimeError(f"there is no packed decoder here: it {reason}")
    return found


def _batches(bench: Bench) -> Any:  # noqa: ANN401
    tokens, counted = bench.tokens, np.ones(len(bench.tokens.ids), dtype=bool)
    for rows in even(tokens.lengths, bench.budget):
        yield moved(packed(rows, tokens, counted), bench.device)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--json", type=Path, default=Path("embedding.jsonl"))
    parser.add_argument("--tiny", action="store_true", help="small models, on the CPU")
    parser.add_argument("--tokens", type=int, default=650_000, help="real tokens of a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=400, help="begin no part after it")
    parser.add_argument("--only", nargs="*", default=[], help="the parts to run")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.tokens, arguments.repeats = 10_000, 1
    return arguments


def main() -> None:
    """Run the parts and print the ratios."""
    bench = Bench(parse())
    torch.manual_seed(SEED)
    for needed in (machine, lengths):
        bench.parts.run(needed.__name__, partial(needed, bench))
    parts = {
        "moe_scoring": partial(moe_scoring, bench),
        "moe_profile": partial(moe_profile, bench),
        "moe_plain": partial(moe_plain, bench),
        "moe_states": partial(moe_states, bench),
        "moe_router_states": partial(moe_states, bench, "router"),
        "check": partial(check, bench),
        "dense_plain": partial(dense_plain, bench),
        "dense_states": partial(dense_states, bench),
    }
    failed = bench.parts.run_all(parts, bench.arguments.only or list(parts))
    for part, beside in COMPARED:
        rates = [
            bench.parts.found.get(name, {}).get("tokens_per_second") for name in (part, beside)
        ]
        if all(rates):
            ratio = rates[0] / rates[1]
            print(f"{part} is {ratio:.2f} of {beside} (goal {GOAL})", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""Tokens per second of scoring a pool with a Select-MoE router, beside transformers' own ways.

    python benchmarks/scoring.py --data data                 # OLMoE-1B-7B's shape, one 80 GB GPU
    python benchmarks/scoring.py --tiny --data data          # the same steps on a CPU

Random bf16 weights, the real pool's lengths and words; rates count real tokens only. The ceiling is
a bf16 matrix product measured in the same run. Two shares of it are printed: of the model's nominal
work (8 active experts, attention projections, gate), which is how the ways compare with each other,
and of the work really done: trash slots and what lies behind the last router are never computed.
A section that fails prints why, and the rest goes on. ``--sections`` names those to run.
"""

import argparse
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selectmoe_core.encoding import Joined
from selectmoe_olmoe.attention import PaddedAttention, VarlenAttention
from selectmoe_router.packed import PackedMeans, even, moved, packed
from selectmoe_router.reduction import OnItsWay, Routing

FULL = {
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
}
TINY = FULL | {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "vocab_size": 2048,
}
TRASH = 8
LONGEST = 2048
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


class Bench:
    """What the sections share, and the numbers they leave."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tiny = arguments.tiny
        self.device = "cpu" if arguments.tiny or not torch.cuda.is_available() else "cuda"
        self.cuda = self.device == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.shape: dict[str, Any] = TINY if self.tiny else FULL
        self.start = time.monotonic()
        self.numbers: dict[str, Any] = {"machine": describe(self.device), "tiny": self.tiny}
        self.ceiling = 0.0
        self.decoder: Any = None
        self.routing = Routing(self.shape["num_experts"], TRASH, self.shape["num_experts_per_tok"])
        self.layers = range(self.shape["num_hidden_layers"])
        self.ids: list[np.ndarray] = []

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.arguments.seconds - (time.monotonic() - self.start)

    def section(self, name: str, work: Callable[["Bench"], object], needs: float = 0.0) -> None:
        """Run a section if wanted and affordable; whatever fails is printed and passed over."""
        wanted = self.arguments.sections
        if (wanted and name not in wanted) or (not wanted and name == "compiled"):
            return
        if self.left < needs:
            print(f"[{name}] left out: {self.left:.0f} s left, it needs {needs:.0f}", flush=True)
            return
        begin = time.monotonic()
        try:
            self.numbers[name] = work(self)
        except Exception:
            print(f"[{name}] FAILED\n{traceback.format_exc()}", flush=True)
            self.numbers[name] = {"failed": traceback.format_exc()}
        finally:
            self.arguments.json.write_text(json.dumps(self.numbers, indent=2, default=str))
            if self.cuda:
                torch.cuda.empty_cache()
        print(f"[{name}] {time.monotonic() - begin:.1f} s", flush=True)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

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


def main() -> None:
    """Run the sections in order of importance and print the table."""
    bench = Bench(parse())
    print(bench.numbers["machine"], flush=True)
    torch.manual_seed(SEED)
    for needed in (lengths, ceiling, model):
        bench.numbers[needed.__name__] = needed(bench)
        print(f"[{needed.__name__}] {bench.numbers[needed.__name__]}", flush=True)
    bench.section("fast", fast)
    bench.section("transformers", transformers_default, needs=10)
    bench.section("eager", eager_loop, needs=10)
    bench.section("check", check, needs=8)
    bench.section("profile", profile, needs=8)
    bench.section("steps", each_step, needs=8)
    bench.section("variants", variants, needs=15)
    bench.section("plain", plain, needs=10)
    bench.section("compiled", compiled, needs=120)
    bench.numbers["seconds"] = round(time.monotonic() - bench.start, 1)
    bench.arguments.json.write_text(json.dumps(bench.numbers, indent=2, default=str))
    table(bench)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    data = Path(os.environ.get("SELECTMOE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--json", type=Path, default=Path("scoring.json"))
    parser.add_argument("--tiny", action="store_true", help="a small model, on the CPU")
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--tokens", type=int, default=650_000, help="real tokens of a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=230, help="begin no section after it")
    parser.add_argument("--sections", nargs="*", help="by default all but 'compiled'")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.batch_tokens, arguments.tokens = 2048, 20_000
    return arguments


def describe(device: str) -> str:
    """Name the machine and the versions."""
    import transformers

    gpu = torch.cuda.get_device_name(0) if device == "cuda" else "no GPU"
    try:
        import triton

        found = triton.__version__
    except ImportError:
        found = "none"
    return (
        f"{gpu}, {os.cpu_count()} cores, python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, triton {found}"
    )


def lengths(bench: Bench) -> dict[str, object]:
    """Tokenise a sample of the pool with a byte-level BPE trained on it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    random = np.random.default_rng(SEED)
    texts = list(examples(bench.arguments.data))
    if not texts:
        print(f"no pool at {bench.arguments.data}: lengths and ids are drawn instead", flush=True)
        drawn = random.lognormal(5.0, 0.9, bench.arguments.tokens // 200).clip(8, LONGEST)
        bench.ids = [random.integers(0, bench.shape["vocab_size"], int(n)) for n in drawn]
        return {"examples": len(drawn), "tokens": int(sum(map(len, bench.ids))), "drawn": True}
    sample = [texts[row] for row in random.permutation(len(texts))[: bench.arguments.tokens // 100]]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(32000, bench.shape["vocab_size"]), show_progress=False
    )
    bpe.train_from_iterator(sample, trainer)
    rows = [np.array(one.ids[:LONGEST], dtype=np.int32) for one in bpe.encode_batch(sample)]
    total = np.cumsum([len(row) for row in rows])
    bench.ids = rows[: int(np.searchsorted(total, bench.arguments.tokens)) + 1]
    counts = np.array([len(row) for row in bench.ids])
    return {
        "examples": len(counts),
        "tokens": int(counts.sum()),
        "mean": round(float(counts.mean()), 1),
        "percentiles_10_50_90_99": np.percentile(counts, [10, 50, 90, 99]).tolist(),
    }


def examples(data: Path) -> Iterator[str]:
    """Yield every example of the pool as one text."""
    for file in sorted((data / "less/train/processed").glob("*/*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                messages = json.loads(line)["messages"]
                text = "\n".join(f"<|{m['role']}|>\n{m['content']}" for m in messages)
                if text:
                    yield text


def ceiling(bench: Bench) -> dict[str, float]:
    """Measure a large matrix product and a large copy."""
    size = 8192 if bench.cuda else 512
    a, b = (torch.randn(size, size, device=bench.device, dtype=bench.dtype) for _ in "ab")
    seconds = median_seconds(bench, lambda: a @ b)
    bench.ceiling = 2 * size**3 / seconds
    source = torch.empty(2**30 if bench.cuda else 2**20, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copy = median_seconds(bench, lambda: target.copy_(source))
    return {"tflops": bench.ceiling / 1e12, "copy_tb_s": 2 * source.numel() / copy / 1e12}


def median_seconds(bench: Bench, work: Callable[[], object], repeats: int = 20) -> float:
    """Return the median time of a call, by device events where there is a device."""
    for _ in range(3):
        work()
    bench.synchronize()
    times = []
    for _ in range(repeats):
        if not bench.cuda:
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        first.record()
        work()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def model(bench: Bench) -> dict[str, object]:
    """Build the model with random weights on the device itself."""
    from selectmoe_olmoe.modeling import SelectMoeConfig, SelectMoeModel

    config = SelectMoeConfig(**bench.shape, num_trash_experts=TRASH, pad_token_id=0)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with torch.device(bench.device):
            bench.decoder = SelectMoeModel(config).eval()
    finally:
        torch.set_default_dtype(before)
    bench.decoder.requires_grad_(requires_grad=False)
    bench.decoder.set_experts_implementation("grouped_mm")
    parameters = sum(p.numel() for p in bench.decoder.parameters())
    return {"parameters": parameters, "gflop_per_token": bench.flops() / 1e9}


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
        bench.numbers["way"] = (steps, attention)
        return found | rate
    raise RuntimeError("no way of the packed decoder runs here")


def packed_decoder(bench: Bench, steps: str, attention: str, warps: int = 4) -> Any:  # noqa: ANN401
    """Return the packed decoder over the model's weights."""
    from selectmoe_olmoe.launches import TritonSteps
    from selectmoe_olmoe.packed import PackedDecoder
    from selectmoe_olmoe.steps import TorchSteps

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
    from transformers import OlmoeConfig
    from transformers.models.olmoe.modeling_olmoe import OlmoeModel

    config = OlmoeConfig(**bench.shape, pad_token_id=0)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    weights = bench.decoder.state_dict()
    for name, tensor in weights.items():
        if name.endswith("mlp.gate.weight"):
            weights[name] = tensor[: bench.routing.experts].clone()
    with torch.device("meta"):
        decoder = OlmoeModel(config).eval()
    decoder.load_state_dict(weights, assign=True)
    decoder.rotary_emb = bench.decoder.rotary_emb
    decoder.requires_grad_(requires_grad=False)
    decoder.set_experts_implementation(experts)
    return decoder


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
    import scoring_check

    way = bench.numbers.get("way", ("torch", "padded"))
    decoder = packed_decoder(bench, *way)
    found = scoring_check.errors(bench.decoder, decoder, way[0], bench.device, bench.dtype)
    for name, (ours, theirs) in found.items():
        verdict = "ok" if ours <= 1.5 * theirs or ours < 1e-5 else "TOO LARGE"
        print(f"  {name:<28} {ours:.2e}  eager {theirs:.2e}  {verdict}", flush=True)
    return {name: {"ours": ours, "eager": theirs} for name, (ours, theirs) in found.items()}


def profile(bench: Bench) -> list[dict[str, object]]:
    """Where the device's time goes in three batches of the fast path."""
    from torch.profiler import ProfilerActivity, record_function

    decoder = packed_decoder(bench, *bench.numbers.get("way", ("torch", "padded")))
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
    import scoring_check

    steps = bench.numbers.get("way", ("torch", ""))[0]
    found = {}
    tokens = bench.arguments.batch_tokens
    for warps in (4, 8) if steps == "triton" else (4,):
        decoder = packed_decoder(bench, steps, "padded", warps)
        work = scoring_check.calls(
            bench.decoder, decoder, bench.routing, tokens, bench.device, bench.dtype
        )
        for name, (call, size, flops) in work.items():
            seconds = median_seconds(bench, call, 10)
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
        name: value
        for name, value in bench.numbers.items()
        if isinstance(value, dict) and "tokens_per_second" in value
    }
    base = {name: rates[name]["tokens_per_second"] for name in rates}
    print(f"\n{bench.numbers['machine']}")
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

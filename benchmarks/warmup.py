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

Every part prints its result as it goes and appends it to a file of JSON lines; a part that fails
prints why, and the rest goes on. ``--only`` names those to run. On an H100: agreement 15 s, router
45 s, memory 20 s, lora 25 s, all 50 s, small 30 s.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import OlmoeConfig, OlmoeForCausalLM, TrainerCallback
from warmup_inputs import FULL, SMALL, TINY, ceiling, machine, pool

from selectmoe_core.models import ModelRef
from selectmoe_core.protocols import Job
from selectmoe_core.training import CheckpointClock
from selectmoe_olmoe import packed_training, warmup
from selectmoe_olmoe.batches import LengthGroupedSampler, Row, collate
from selectmoe_olmoe.config import WarmupConfig
from selectmoe_olmoe.modeling import SelectMoeConfig, SelectMoeForCausalLM
from selectmoe_olmoe.optimizers import optimizer_of
from selectmoe_olmoe.trainable import trainable
from selectmoe_olmoe.training_steps import TorchTrainingSteps
from selectmoe_olmoe.twins import Pair, TwinRows

TRASH = 8
STEP = 64
SEED = 7


class Bench:
    """What the parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tiny = arguments.tiny
        self.device = "cpu" if arguments.tiny or not torch.cuda.is_available() else "cuda"
        self.cuda = self.device == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.shape: dict[str, Any] = TINY if self.tiny else FULL
        self.ids: list[np.ndarray] = []
        self.ceiling = 1.0
        self.folder = Path(tempfile.mkdtemp(prefix="warmup-"))
        self.start = time.monotonic()

    def write(self, part: str, result: object) -> None:
        """Append a result to the file and print it."""
        with self.arguments.json.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"part": part, "result": result}, default=str) + "\n")
        print(f"[{part}] {json.dumps(result, default=str)}", flush=True)

    def part(self, name: str, work: Callable[["Bench"], Iterator[tuple[str, object]]]) -> None:
        """Run a part if it is wanted and write what it yields; whatever fails is passed over."""
        if self.arguments.only and name not in self.arguments.only:
            return
        begin = time.monotonic()
        try:
            for what, result in work(self):
                self.write(f"{name}: {what}", result)
        except Exception:
            print(f"[{name}] FAILED\n{traceback.format_exc()}", flush=True)
            self.write(name, {"failed": traceback.format_exc()})
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        print(f"[{name}] {time.monotonic() - begin:.1f} s", flush=True)

    def flops(self, shape: dict[str, Any], *, passes: int, predicted: float) -> float:
        """FLOPs of a token in a training step."""
        hidden, wide = shape["hidden_size"], shape["intermediate_size"]
        layer = 8 * hidden**2 + 2 * hidden * (shape["num_experts"] + TRASH)
        layer += shape["num_experts_per_tok"] * 6 * hidden * wide
        head = predicted * 2 * hidden * shape["vocab_size"]
        return passes * (shape["num_hidden_layers"] * layer + head)


class Examples(torch.utils.data.Dataset[Row]):
    """Token ids as training rows; the first half of each is the prompt, which is not predicted."""

    def __init__(self, ids: Sequence[np.ndarray], vocabulary: int) -> None:
        self.ids = [row % vocabulary for row in ids]
        self.lengths = np.array([len(row) for row in ids])
        self.rows = np.arange(len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: int) -> Row:
        ids = self.ids[item]
        answer = np.arange(len(ids)) >= max(1, len(ids) // 2)
        return Row(ids.astype(np.int64), answer.astype(np.float32), answer)

    def sampler(self, batch_size: int, seed: int, together: int = 1) -> LengthGroupedSampler:
        """Return the order of training."""
        return LengthGroupedSampler(self.lengths, batch_size, seed, together)


class Pairs(TwinRows):
    """The rows, each beside a twin of its length with shuffled answer."""

    def __init__(self, rows: Examples) -> None:
        self.rows = rows  # type: ignore[assignment]
        self.lengths = rows.lengths
        self.kinds = ["shuffle"] * len(rows)

    def __getitem__(self, item: int) -> Pair:
        sound = self.rows[item]
        ids = sound.ids.copy()
        np.random.default_rng(item).shuffle(ids[len(ids) // 2 :])
        return Pair(sound, Row(ids, np.zeros_like(sound.weights), sound.answer))

    def set_epoch(self, epoch: int) -> None:
        """Keep the twins."""


class Clock(TrainerCallback):
    """Notes the time, the tokens and the losses after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.trainer: Any = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Take down a step; whatever ran on the device is done when its loss is known."""
        if "loss" in logs:
            self.times.append(time.perf_counter())
            self.tokens.append(self.trainer.trained_tokens)
            self.losses.append(logs["loss"])


def main() -> None:
    """Run the parts and print the table."""
    bench = Bench(parse())
    bench.arguments.json.unlink(missing_ok=True)
    bench.write("machine", machine(bench.device))
    if not bench.cuda:  # the packed path on plain steps, so that all of this script is tried
        warmup.obstacle = lambda *_: None
        packed_training.TritonTrainingSteps = TorchTrainingSteps  # type: ignore[misc,assignment]
    torch.manual_seed(SEED)
    bench.ids = pool(bench.arguments.data, bench.arguments.tokens, bench.shape["vocab_size"], SEED)
    bench.write("lengths", spread_of(bench.ids))
    bench.ceiling = ceiling(bench.device, bench.dtype)
    bench.write("ceiling, TFLOP/s", bench.ceiling / 1e12)
    for name, work in (
        ("agreement", agreement),
        ("router", router),
        ("memory", memory),
        ("lora", lora),
        ("all", everything),
        ("small", small),
    ):
        bench.part(name, work)
    bench.write("seconds", round(time.monotonic() - bench.start, 1))


def spread_of(ids: Sequence[np.ndarray]) -> dict[str, object]:
    """Describe the lengths."""
    lengths = np.array([len(row) for row in ids])
    return {
        "examples": len(lengths),
        "tokens": int(lengths.sum()),
        "percentiles_10_50_90_99": np.percentile(lengths, [10, 50, 90, 99]).tolist(),
    }


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


# --------------------------------------------------------------------------------------- models


def built(bench: Bench, shape: dict[str, Any], dtype: torch.dtype) -> SelectMoeForCausalLM:
    """Build a model with random weights on the device itself."""
    config = SelectMoeConfig(**shape, num_trash_experts=TRASH, pad_token_id=0, eos_token_id=None)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(SEED)
    try:
        with torch.device(bench.device):
            model = SelectMoeForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.set_experts_implementation("grouped_mm")
    return model


def olmoe(bench: Bench, model: Any, shape: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return transformers' own OLMoE on the same weights, without trash cans."""
    config = OlmoeConfig(**shape, pad_token_id=0, eos_token_id=None)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    weights = dict(model.state_dict())
    for name, tensor in weights.items():
        if name.endswith("mlp.gate.weight"):
            weights[name] = tensor[: shape["num_experts"]].to(model.dtype).clone()
    with torch.device("meta"):
        plain = OlmoeForCausalLM(config)
    plain.load_state_dict(weights, assign=True)
    plain.model.rotary_emb = type(plain.model.rotary_emb)(config).to(bench.device)
    plain.set_experts_implementation("grouped_mm")
    return plain.train()


# --------------------------------------------------------------------------------------- ours


def job_of(bench: Bench) -> Job:
    """Return the job of a stage that keeps nothing."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    dtype = "bfloat16" if bench.cuda else "float32"
    return Job(seed=SEED, device=bench.device, dtype=dtype, checkpoints=folder)


def ours(
    bench: Bench,
    model: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    config: WarmupConfig,
    seconds: float | None = None,
) -> tuple[Any, Clock]:
    """Train with the trainer of the stage, for a number of steps or for some seconds."""
    network = trainable(model, config)
    job = job_of(bench)
    trainer = warmup.SelectMoeWarmup(config)._trainer(  # noqa: SLF001
        ModelRef("none"), network, rows, job
    )
    trainer.remove_callback(CheckpointClock)
    clock = Clock()
    clock.trainer = trainer
    trainer.add_callback(clock)
    if seconds is not None:
        trainer.add_callback(Stop(clock, seconds))
    trainer.train()
    return trainer, clock


class Stop(TrainerCallback):
    """Ends training some seconds after the third step."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Look at the clock."""
        times = self.clock.times
        if len(times) > 3 and time.perf_counter() - times[2] > self.seconds:
            control.should_training_stop = True


def measured(
    bench: Bench,
    model: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    config: WarmupConfig,
    flops: float,
) -> dict[str, object]:
    """Return tokens per second of our trainer after two steps, their share and the memory."""
    reset(bench)
    trainer, clock = ours(bench, model, rows, config, bench.arguments.seconds)
    tokens = np.diff(clock.tokens[1:])
    times = np.diff(clock.times[1:])
    rate = float(tokens.sum() / times.sum())
    return {
        "tokens_per_second": rate,
        "spread": float(np.std(tokens / times) / rate),
        "steps": len(clock.times),
        "tokens_per_step": float(tokens.mean()),
        "share_of_ceiling": rate * flops / bench.ceiling,
        "peak_gib": peak(bench),
        "first_step_seconds": clock.times[1] - clock.times[0],
        "kernel": trainer.kernel,
    }


def profiled(bench: Bench, name: str, model: Any, rows: Any, config: WarmupConfig) -> None:  # noqa: ANN401
    """Append a table of where the time of two steps goes."""
    from torch.profiler import ProfilerActivity

    ours(bench, model, rows, config.model_copy(update={"max_steps": 1}))
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]
    begin = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as recorded:
        _, clock = ours(bench, model, rows, config.model_copy(update={"max_steps": 2}))
    wall = time.perf_counter() - begin
    key = "self_device_time_total" if bench.cuda else "self_cpu_time_total"
    kind = torch.autograd.DeviceType.CUDA if bench.cuda else torch.autograd.DeviceType.CPU
    events = [event for event in recorded.key_averages() if event.device_type == kind]
    events.sort(key=lambda event: -getattr(event, key))
    busy = sum(getattr(event, key) for event in events) / 1e3
    lines = [f"{name}: {clock.tokens[-1]} tokens, {busy:.1f} ms of the device, {wall:.2f} s wall"]
    lines += [
        f"{getattr(event, key) / 1e3:10.2f} ms {event.count:6}  {event.key[:100]}"
        for event in events[:22]
    ]
    slow = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)[:12]
    lines += [
        f"{event.self_cpu_time_total / 1e3:10.2f} ms {event.count:6}  host: {event.key[:90]}"
        for event in slow
    ]
    text = "\n".join(lines)
    print(text, flush=True)
    with bench.arguments.profiles.open("a", encoding="utf-8") as out:
        out.write(text + "\n\n")


def reset(bench: Bench) -> None:
    """Start a new peak of memory."""
    if bench.cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(bench: Bench) -> float | None:
    """Return the peak of allocated memory in GiB."""
    return torch.cuda.max_memory_allocated() / 2**30 if bench.cuda else None


# -------------------------------------------------------------------------------------- plain


def plain_steps(
    bench: Bench,
    model: Any,  # noqa: ANN401
    rows: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    batch: int,
    flops: float,
) -> dict[str, object]:
    """Return tokens per second of transformers' own step."""
    reset(bench)
    order = list(rows.sampler(batch, SEED))
    rates: list[tuple[int, float]] = []
    first = 0
    while len(rates) < 3 or sum(seconds for _, seconds in rates[2:]) < bench.arguments.seconds / 2:
        begin = time.perf_counter()
        tokens = 0
        for start in range(0, STEP, batch):
            chosen = [rows[order[(first + start + at) % len(order)]] for at in range(batch)]
            tokens += sum(len(row.ids) for row in chosen)
            plain_loss(bench, model, chosen).div(STEP // batch).backward()
        torch.nn.utils.clip_grad_norm_(
            [p for p in model.parameters() if p.requires_grad], 1.0
        ).item()
        optimizer.step()
        optimizer.zero_grad()
        if bench.cuda:
            torch.cuda.synchronize()
        rates.append((tokens, time.perf_counter() - begin))
        first += STEP
    done = rates[2:]
    rate = sum(tokens for tokens, _ in done) / sum(seconds for _, seconds in done)
    return {
        "tokens_per_second": rate,
        "spread": statistics.pstdev([tokens / seconds for tokens, seconds in done]) / rate,
        "steps": len(rates),
        "share_of_ceiling": rate * flops / bench.ceiling,
        "peak_gib": peak(bench),
    }


def plain_loss(bench: Bench, model: Any, rows: Sequence[Row]) -> Tensor:  # noqa: ANN401
    """Return the loss that transformers takes of a padded batch."""
    batch = {name: tensor.to(bench.device) for name, tensor in collate(rows).items()}
    labels = batch["input_ids"].masked_fill(batch["loss_weights"] == 0, -100)
    found: Tensor = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=labels,
        output_router_logits=True,
        use_cache=False,
    ).loss
    return found


# -------------------------------------------------------------------------------------- parts


def options(bench: Bench, **changes: Any) -> WarmupConfig:  # noqa: ANN401
    """Return the stage's options for steps of 64 examples."""
    return WarmupConfig(
        **{
            "batch_size": 16,
            "gradient_accumulation": STEP // 16,
            "max_steps": 10_000,
            "pass_tokens": bench.arguments.pass_tokens,
            **changes,
        }
    )


def router(bench: Bench) -> Iterator[tuple[str, object]]:
    """Only the gates of OLMoE-1B-7B's shape."""
    model = built(bench, bench.shape, bench.dtype)
    rows = Examples(bench.ids, bench.shape["vocab_size"])
    flops = bench.flops(bench.shape, passes=2, predicted=0.5)
    plain = olmoe(bench, model, bench.shape).requires_grad_(requires_grad=False)
    trained = [layer.mlp.gate.weight.requires_grad_() for layer in plain.model.layers]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    base = plain_steps(bench, plain, rows, optimizer, batch=16, flops=flops)
    yield "plain, micro-batches of 16", base
    found = measured(bench, model, rows, options(bench), flops)
    yield "ours", found
    yield "ratio", ratio(found, base)
    yield (
        "ours, contrastive",
        measured(bench, model, Pairs(rows), options(bench, objective="contrastive"), flops),
    )
    profiled(bench, "router", model, rows, options(bench))
    default = {"batch_size": 4, "gradient_accumulation": 1}
    yield "ours, 4 examples a step", measured(bench, model, rows, options(bench, **default), flops)


def memory(bench: Bench) -> Iterator[tuple[str, object]]:
    """Peak memory of 4 x 512 tokens, gates alone, with checkpointing and without."""
    model = built(bench, bench.shape, bench.dtype)
    length = 64 if bench.tiny else 512
    ids = np.random.default_rng(SEED).integers(0, bench.shape["vocab_size"], (8, length))
    rows = Examples(list(ids), bench.shape["vocab_size"])
    for recompute in (True, False):
        reset(bench)
        few = {"batch_size": 4, "gradient_accumulation": 1, "max_steps": 3}
        ours(bench, model, rows, options(bench, activation_checkpointing=recompute, **few))
        yield f"router, 4 x {length}, checkpointing {recompute}", {"peak_gib": peak(bench)}


def lora(bench: Bench) -> Iterator[tuple[str, object]]:
    """Low-rank additions to attention beside whole gates."""
    model = built(bench, bench.shape, bench.dtype)
    rows = Examples(bench.ids, bench.shape["vocab_size"])
    flops = bench.flops(bench.shape, passes=2, predicted=0.5)
    config = options(bench, peft_mode="lora", trainable="all")
    yield "ours", measured(bench, model, rows, config, flops)


def everything(bench: Bench) -> Iterator[tuple[str, object]]:
    """All weights in bf16 with Adafactor: plain steps with plain rounding, ours with random."""
    model = built(bench, bench.shape, bench.dtype)
    rows = Examples(bench.ids, bench.shape["vocab_size"])
    flops = bench.flops(bench.shape, passes=3, predicted=0.5)
    narrow = {"weights": "bfloat16"} if bench.cuda else {}
    config = options(bench, trainable="all", optimizer="adafactor", **narrow)
    plain = olmoe(bench, model, bench.shape)
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
        yield "ratio", ratio(found, base)
    profiled(bench, "all", model, rows, config)


def small(bench: Bench) -> Iterator[tuple[str, object]]:
    """All weights of a small model with the contrastive objective, fp32 weights and AdamW."""
    shape = TINY if bench.tiny else SMALL
    model = built(bench, shape, torch.float32)
    rows = Pairs(Examples(bench.ids, shape["vocab_size"]))
    # Half of the tokens are twins', of which none is predicted.
    flops = bench.flops(shape, passes=3, predicted=0.25) * 2  # a rate counts sound tokens
    wide = 2 * bench.arguments.pass_tokens
    config = options(bench, trainable="all", objective="contrastive", pass_tokens=wide)
    yield "ours, contrastive", measured(bench, model, rows, config, flops)
    profiled(bench, "small", model, rows, config)


def agreement(bench: Bench) -> Iterator[tuple[str, object]]:
    """Losses of both paths over 20 steps of a small model, from equal weights, all trained."""
    shape = (TINY if bench.tiny else SMALL) | {"num_hidden_layers": 4}
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
    before = warmup.obstacle
    warmup.obstacle = lambda *_: "is switched off"
    try:
        return ours(bench, model, rows, config)[1]
    finally:
        warmup.obstacle = before


def ratio(found: dict[str, Any], base: dict[str, Any]) -> float:
    """Return how many times as fast the first is."""
    quotient: float = found["tokens_per_second"] / base["tokens_per_second"]
    return quotient


if __name__ == "__main__":
    main()

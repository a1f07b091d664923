"""Steps of warm-up that ``warmup.py`` measures: our trainer's, and transformers' own."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import OnDevice, wait
from parts import Parts
from random_weights import random_model
from shapes import OLMOE, TINY, TINY_EXPERTS
from torch import Tensor
from transformers import TrainerCallback

from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.training.checkpoints import Checkpoints
from selectmoe_olmoe.config import ConstraintConfig, ContrastiveConfig, WarmupConfig
from selectmoe_olmoe.model.modeling import SelectMoeConfig, SelectMoeForCausalLM
from selectmoe_olmoe.warmup.batches import LengthGroupedSampler, Row, Split, collate
from selectmoe_olmoe.warmup.pairs import Pair, PairRows
from selectmoe_olmoe.warmup.parts import SelectMoeConstraint, SelectMoeContrastive, SelectMoeWarmup
from selectmoe_olmoe.warmup.trainable import trainable

SMALL = OLMOE | {
    "hidden_size": 768,
    "intermediate_size": 384,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "vocab_size": 32000,
}
TRASH = 8
STEP = 64
SEED = 7


class Bench(OnDevice):
    """What the parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        tiny = OLMOE | TINY | TINY_EXPERTS
        self.shape: dict[str, Any] = tiny if self.tiny else OLMOE
        self.small: dict[str, Any] = tiny if self.tiny else SMALL
        self.ids: list[np.ndarray] = []
        self.folder = Path(tempfile.mkdtemp(prefix="warmup-"))
        self.parts = Parts(arguments.json, after=self.free)

    def free(self) -> None:
        """Give back the memory of a part."""
        if self.cuda:
            wait(self.device)
            torch.cuda.empty_cache()

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

    def sampler(self, split: Split, seed: int) -> LengthGroupedSampler:
        """Return the order of training."""
        return LengthGroupedSampler(self.lengths, split, seed)


class Pairs(PairRows):
    """The rows, each beside a copy of its length with shuffled answer."""

    def __init__(self, rows: Examples) -> None:
        self.rows = rows  # type: ignore[assignment]
        self.lengths = rows.lengths
        self.kinds = ["shuffle"] * len(rows)

    def __getitem__(self, item: int) -> Pair:
        clean = self.rows[item]
        ids = clean.ids.copy()
        np.random.default_rng(item).shuffle(ids[len(ids) // 2 :])
        return Pair(clean, Row(ids, np.zeros_like(clean.weights), clean.answer))

    def set_epoch(self, epoch: int) -> None:
        """Keep the copies."""


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


def built(bench: Bench, shape: dict[str, Any], dtype: torch.dtype) -> SelectMoeForCausalLM:
    """Build a model with random weights on the device itself."""
    config = SelectMoeConfig(**shape, num_trash_experts=TRASH, pad_token_id=0, eos_token_id=None)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    torch.manual_seed(SEED)
    model: SelectMoeForCausalLM = random_model(SelectMoeForCausalLM, config, bench.device, dtype)
    model.set_experts_implementation("grouped_mm")
    return model


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
    trainer = part_of(config).trainer(ModelRef("none"), network, rows, job)
    trainer.remove_callback(Checkpoints)
    clock = Clock()
    clock.trainer = trainer
    trainer.add_callback(clock)
    if seconds is not None:
        trainer.add_callback(Stop(clock, seconds))
    trainer.train()
    return trainer, clock


def part_of(config: WarmupConfig) -> SelectMoeWarmup:
    """Return the part that has these options."""
    if isinstance(config, ContrastiveConfig):
        return SelectMoeContrastive(config)
    assert isinstance(config, ConstraintConfig)
    return SelectMoeConstraint(config)


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
    order = list(rows.sampler(Split(batch, 1), SEED))
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
        wait(bench.device)
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

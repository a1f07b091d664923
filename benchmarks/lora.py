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
import gc
import json
import os
import platform
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from selectmoe_core import Example, Message
from selectmoe_core.chat import ChatConfig, ChatFormat
from selectmoe_core.encoding import encode
from selectmoe_core.examples import content_id
from selectmoe_core.models import ModelRef
from selectmoe_core.protocols import Job
from selectmoe_llama.adapter import with_additions
from selectmoe_llama.batches import Place, TrainingRows
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.quantized import load_quantized
from selectmoe_llama.trainer import build_trainer

FULL = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
TINY = FULL | {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SEED = 7
PLAIN_BATCH = 16
COMPARED = {"total_batch": 32, "max_steps": 10, "dropout": 0.0, "learning_rate": 3e-4}
"""Options of the arms whose losses are compared: few examples a step, since the plain one is slow;
no dropout, which draws other numbers for another layout."""
CARD = 24 * 2**30
RESERVED = 2**29
"""What a driver and its context take of a 24 GiB card."""


class Bench:
    """What the parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.tiny = arguments.tiny
        self.cuda = torch.cuda.is_available() and not arguments.tiny
        self.device = "cuda" if self.cuda else "cpu"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.shape: dict[str, Any] = TINY if self.tiny else FULL
        self.start = time.monotonic()
        self.work = Path(tempfile.mkdtemp())
        self.chat = ChatFormat(ChatConfig(max_length=128 if self.tiny else 2048))
        self.ceiling = 0.0
        self.parameters = 0
        self.base: Any = None
        self.rows: Any = None
        self.results: dict[str, Any] = {}

    def part(self, name: str, work: Callable[["Bench"], dict[str, Any]]) -> None:
        """Run a part, print and write what it returns; what fails is printed and passed over."""
        spent = time.monotonic() - self.start
        if spent > self.arguments.seconds:
            print(f"[{name}] left out: {spent:.0f} s are over", flush=True)
            return
        begin = time.monotonic()
        try:
            found = work(self)
        except Exception:
            found = {"failed": traceback.format_exc()}
            print(found["failed"], flush=True)
        if self.base is not None:
            restore(self.base.to(self.device))
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
        found["part_seconds"] = round(time.monotonic() - begin, 1)
        self.results[name] = found
        with self.arguments.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": name} | found, default=str) + "\n")
        shown = {key: value for key, value in found.items() if key not in {"failed", "losses"}}
        print(f"[{name}] {shown}", flush=True)

    def options(self, **changes: Any) -> LoraTrainingConfig:  # noqa: ANN401
        """Return the published method's options, with changes; compiled, as a long run would be."""
        small = {"r": 4, "alpha": 16.0, "total_batch": PLAIN_BATCH} if self.tiny else {}
        defaults = {"warmup_ratio": 0.0, "compile": self.cuda}
        return LoraTrainingConfig(**defaults | changes | small)

    def network(self, config: LoraTrainingConfig) -> Any:  # noqa: ANN401
        """Return the base with fresh additions, the same every time."""
        base = self.base if config.quantization == "none" else self.quantized()
        torch.manual_seed(SEED)
        return with_additions(base, ModelRef("random"), config)

    def quantized(self) -> Any:  # noqa: ANN401
        """Return the base in 4 bits, by way of the disk; the base itself leaves the device."""
        folder = self.work / "base"
        self.base.save_pretrained(folder)
        self.base.to("cpu")
        if self.cuda:
            torch.cuda.empty_cache()
        return load_quantized(ModelRef(str(folder)), self.job())

    def job(self) -> Job:
        """Return a trainer's job."""
        return Job(
            seed=SEED,
            device=self.device,
            dtype="bfloat16" if self.cuda else "float32",
            chat=self.chat,
            checkpoints=self.work / "checkpoints",
        )


def main() -> None:
    """Run the parts in order of importance and print the table."""
    arguments = parse()
    bench = Bench(arguments)
    arguments.json.write_text("", encoding="utf-8")
    for needed in (machine, ceiling, model, data):
        bench.part(needed.__name__, needed)
    parts = {
        "fast": lambda b: fast(b, max_steps=9),
        "plain": plain,
        "losses": losses,
        "checkpointing": lambda b: fast(b, max_steps=5, activation_checkpointing=True),
        "memory24": memory24,
        "profile": profile,
        "eager": lambda b: fast(b, max_steps=4, compile=False),
        "tokens8192": lambda b: fast(b, max_steps=5, pass_tokens=8192),
        "tokens16384": lambda b: fast(b, max_steps=4, pass_tokens=16384),
    }
    if "qlora" in (arguments.only or ()):  # needs bitsandbytes, and the disk 14 GB
        parts["qlora"] = qlora
    for name, work in parts.items():
        if not arguments.only or name in arguments.only:
            bench.part(name, work)
    report(bench)


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
    import peft
    import transformers

    gpu = torch.cuda.get_device_name(0) if bench.cuda else "no GPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return {
        "machine": f"{gpu}, {os.cpu_count()} cores, python {platform.python_version()}",
        "versions": f"{versions}, peft {peft.__version__}",
    }


def ceiling(bench: Bench) -> dict[str, Any]:
    """Measure a large matrix product."""
    size = 8192 if bench.cuda else 512
    a, b = (torch.randn(size, size, device=bench.device, dtype=bench.dtype) for _ in "ab")
    times = []
    for _ in range(23):
        wait(bench)
        begin = time.perf_counter()
        a @ b
        wait(bench)
        times.append(time.perf_counter() - begin)
    bench.ceiling = 2 * size**3 / statistics.median(times[3:])
    return {"tflops": round(bench.ceiling / 1e12, 1)}


def model(bench: Bench) -> dict[str, Any]:
    """Build the model with random weights on the device itself."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with torch.device(bench.device):
            bench.base = LlamaForCausalLM(LlamaConfig(**bench.shape, pad_token_id=0))
    finally:
        torch.set_default_dtype(before)
    bench.parameters = sum(weight.numel() for weight in bench.base.parameters())
    return {"parameters": bench.parameters}


def data(bench: Bench) -> dict[str, Any]:
    """Encode a sample of the pool with a byte-level BPE trained on it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    every = list(conversations(bench.arguments.data))
    if not every:
        raise SystemExit(f"no pool in {bench.arguments.data}: name its folder with --data")
    chosen = np.random.default_rng(SEED).permutation(len(every))[: 400 if bench.tiny else 4000]
    sample = [every[number] for number in chosen]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=bench.shape["vocab_size"],
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((m.content for e in sample for m in e.messages), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    encoded = encode(sample, bench.work / "encoded", bench.chat, tokenizer)
    bench.rows = TrainingRows(encoded)
    lengths = bench.rows.lengths
    return {
        "examples": len(lengths),
        "tokens": int(lengths.sum()),
        "mean": round(float(lengths.mean()), 1),
        "percentiles_10_50_90_99": np.percentile(lengths, [10, 50, 90, 99]).tolist(),
    }


def conversations(folder: Path) -> Iterator[Example]:
    """Yield the pool's examples."""
    for file in sorted((folder / "less/train/processed").glob("*/*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                turns = json.loads(line)["messages"]
                messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
                yield Example(content_id(messages).hex(), file.stem, messages)


def fast(bench: Bench, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Train with selectmoe's trainer; the rate begins behind the second step."""
    config = bench.options(**changes)
    trainer, clock = fast_trainer(bench, config)
    trainer.train()
    return clock.result(bench) | {
        "attention": trainer.packed.attention.name,
        "compiled": trainer.packed.compiled,
        "passes": [place.passes for place in trainer.sampler][:: config.total_batch][:9],
    }


def fast_trainer(bench: Bench, config: LoraTrainingConfig) -> tuple[Any, "Clock"]:
    """Return the trainer and what watches it."""
    clock = Clock(bench, step_tokens(bench, config))
    job = Job(**vars(bench.job()) | {"metrics": clock.step})
    network = bench.network(config)
    for layer in network.modules():
        if hasattr(layer, "cast_input_dtype_enabled"):
            layer.cast_input_dtype_enabled = False
    trainer = build_trainer(config, network, bench.rows, job)
    trainer.callback_handler.callbacks = [
        one for one in trainer.callback_handler.callbacks if type(one).__name__ != "CheckpointClock"
    ]
    clock.begin()
    return trainer, clock


class Clock:
    """Notes when each step ended, its loss and the memory it took."""

    def __init__(self, bench: Bench, tokens: list[int]) -> None:
        self.bench = bench
        self.tokens = tokens
        self.times: list[float] = []
        self.losses: list[float] = []

    def begin(self) -> None:
        """Start."""
        if self.bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        self.begun = time.perf_counter()

    def step(self, step: int, values: Any) -> None:  # noqa: ANN401, ARG002
        """Note the end of a step; its loss has been read, so the device is through with it."""
        wait(self.bench)
        self.times.append(time.perf_counter())
        self.losses.append(float(values["loss"]))

    def result(self, bench: Bench) -> dict[str, Any]:
        """Return the figures."""
        seconds = self.times[-1] - self.times[1]
        tokens = sum(self.tokens[2 : len(self.times)])
        rate = tokens / seconds
        work = 4 * bench.parameters * rate
        found = {
            "tokens_per_second": round(rate),
            "share_of_ceiling": round(work / bench.ceiling, 4),
            "tflops": round(work / 1e12, 1),
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "first_two_steps_seconds": round(self.times[1] - self.begun, 1),
            "losses": [round(loss, 4) for loss in self.losses],
        }
        if bench.cuda:
            found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
        return found


def plain(bench: Bench) -> dict[str, Any]:
    """Train with peft and transformers' Trainer on the same examples, step for step."""
    config = bench.options(**COMPARED)
    order = step_order(bench, config)
    network = bench.network(config)
    clock = Clock(bench, step_tokens(bench, config))
    trainer = PlainTrainer(
        model=network,
        args=plain_arguments(bench, config),
        train_dataset=[example(bench, row) for row in order],
        data_collator=pad,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.clock = clock
    clock.begin()
    trainer.train()
    return clock.result(bench) | {"real_share": real_share(bench, order)}


class PlainTrainer(Trainer):
    """Transformers' own, which takes the examples in order and tells the clock."""

    clock: Clock

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:  # noqa: ANN401, ARG002
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the clock."""
        if "loss" in logs:
            self.clock.step(self.state.global_step, logs)
        super().log(logs, start_time)


def plain_arguments(bench: Bench, config: LoraTrainingConfig) -> TrainingArguments:
    """Return the arguments that training with PEFT is usually shown with."""
    fields = TrainingArguments.__dataclass_fields__
    name = "activation" if "activation_checkpointing" in fields else "gradient"
    return TrainingArguments(
        output_dir=str(bench.work / "plain"),
        per_device_train_batch_size=PLAIN_BATCH,
        gradient_accumulation_steps=config.total_batch // PLAIN_BATCH,
        learning_rate=config.learning_rate,
        max_steps=config.max_steps or -1,
        lr_scheduler_type=config.scheduler,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=bench.cuda,
        use_cpu=not bench.cuda,
        optim="adamw_torch_fused" if bench.cuda else "adamw_torch",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=SEED,
        **{f"{name}_checkpointing": True},
        **{f"{name}_checkpointing_kwargs": {"use_reentrant": False}},
    )


def losses(bench: Bench) -> dict[str, Any]:
    """Train as ``plain`` does and compare the losses."""
    found = fast(bench, **COMPARED)
    reference = bench.results.get("plain", {}).get("losses")
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


def step_order(bench: Bench, config: LoraTrainingConfig) -> list[int]:
    """Return the rows of the steps, in the order of the pool within a step."""
    order = np.random.default_rng((SEED, 0)).permutation(len(bench.rows))
    return [int(row) for row in order[: config.total_batch * (config.max_steps or 0)]]


def step_tokens(bench: Bench, config: LoraTrainingConfig) -> list[int]:
    """Return the tokens of examples in each step."""
    order = step_order(bench, config)
    starts = range(0, len(order), config.total_batch)
    return [int(bench.rows.lengths[order[at : at + config.total_batch]].sum()) for at in starts]


def example(bench: Bench, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and the labels of a row."""
    found = bench.rows[Place(row)]
    ids = found.ids.astype(np.int64)
    return ids, np.where(found.weights > 0, ids, -100)


def pad(batch: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
    """Pad to the longest, with a mask."""
    shape = len(batch), max(len(ids) for ids, _ in batch)
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for place, (own, wanted) in enumerate(batch):
        ids[place, : len(own)] = torch.from_numpy(own)
        labels[place, : len(own)] = torch.from_numpy(wanted)
        mask[place, : len(own)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def real_share(bench: Bench, order: list[int]) -> float:
    """Return how much of the plain batches is no padding."""
    lengths = bench.rows.lengths[order].reshape(-1, PLAIN_BATCH)
    return round(float(lengths.sum() / (lengths.max(axis=1) * PLAIN_BATCH).sum()), 3)


def restore(base: Any) -> None:  # noqa: ANN401
    """Take out what a part put into the model: additions, prepared layers, checkpointing."""
    for module in list(base.modules()):
        module.__dict__.pop("forward", None)
        if getattr(module, "gradient_checkpointing", False):
            module.gradient_checkpointing = False
        for name, child in list(module.named_children()):
            if hasattr(child, "get_base_layer"):
                setattr(module, name, child.get_base_layer())
    base.__dict__.pop("peft_config", None)
    base.set_attn_implementation("sdpa")
    base.train()


def wait(bench: Bench) -> None:
    """Wait for the device."""
    if bench.cuda:
        torch.cuda.synchronize()


def report(bench: Bench) -> None:
    """Print the table."""
    baseline = bench.results.get("plain", {}).get("tokens_per_second")
    print(f"\n{'arm':<16}{'tokens/s':>10}{'ceiling':>9}{'x plain':>9}{'peak GiB':>10}")
    for name, found in bench.results.items():
        if "tokens_per_second" not in found:
            continue
        rate = found["tokens_per_second"]
        ratio = f"{rate / baseline:.2f}" if baseline else "-"
        share, peak = f"{found['share_of_ceiling']:.1%}", found.get("peak_gib", "-")
        print(f"{name:<16}{rate:>10,}{share:>9}{ratio:>9}{peak!s:>10}")


if __name__ == "__main__":
    main()

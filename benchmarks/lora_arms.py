"""The arms that ``lora.py`` measures: selectmoe's trainer, and peft with transformers' own."""

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import wait
from llama_bench import LlamaBench
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments

from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.training.arguments import checkpointing
from selectmoe_llama.adapter import with_lora
from selectmoe_llama.batches import Place
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.quantized import load_quantized
from selectmoe_llama.trainer import build_trainer

SEED = 7
PLAIN_BATCH = 16
COMPARED = {"batch_size": 32, "max_steps": 10, "lora_dropout": 0.0, "learning_rate": 3e-4}
"""Options of the arms whose losses are compared: few examples a step, since the plain one is slow;
no dropout, which draws other numbers for another layout."""


class Bench(LlamaBench):
    """What the parts share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.work = Path(tempfile.mkdtemp())
        self.base: Any = None
        self.rows: Any = None

    def free(self) -> None:
        """Take out what a part put into the model, and give back its memory."""
        if self.base is not None:
            restore(self.base.to(self.device))
        gc.collect()
        super().free()

    def options(self, **changes: Any) -> LoraTrainingConfig:  # noqa: ANN401
        """Return the published method's options, with changes; compiled, as a long run would be."""
        small = {"lora_rank": 4, "lora_alpha": 16.0, "batch_size": PLAIN_BATCH} if self.tiny else {}
        defaults = {"warmup_ratio": 0.0, "compile": self.cuda}
        return LoraTrainingConfig(**defaults | changes | small)

    def network(self, config: LoraTrainingConfig) -> Any:  # noqa: ANN401
        """Return the base with fresh LoRA weights, the same every time."""
        base = self.base if config.quantization == "none" else self.quantized()
        torch.manual_seed(SEED)
        return with_lora(base, ModelRef("random"), config)

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


def fast(bench: Bench, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Train with selectmoe's trainer; the rate begins behind the second step."""
    config = bench.options(**changes)
    trainer, clock = fast_trainer(bench, config)
    trainer.train()
    return clock.result(bench) | {
        "attention": trainer.packed.attention.name,
        "compiled": trainer.packed.compiled,
        "passes": [place.passes for place in trainer.sampler][:: config.batch_size][:9],
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
        wait(self.bench.device)
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
    return TrainingArguments(
        output_dir=str(bench.work / "plain"),
        per_device_train_batch_size=PLAIN_BATCH,
        gradient_accumulation_steps=config.batch_size // PLAIN_BATCH,
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
        **checkpointing(on=True),
    )


def step_order(bench: Bench, config: LoraTrainingConfig) -> list[int]:
    """Return the rows of the steps, in the order of the pool within a step."""
    order = np.random.default_rng((SEED, 0)).permutation(len(bench.rows))
    return [int(row) for row in order[: config.batch_size * (config.max_steps or 0)]]


def step_tokens(bench: Bench, config: LoraTrainingConfig) -> list[int]:
    """Return the tokens of examples in each step."""
    order = step_order(bench, config)
    starts = range(0, len(order), config.batch_size)
    return [int(bench.rows.lengths[order[at : at + config.batch_size]].sum()) for at in starts]


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
    """Take out what a part put into the model: LoRA weights, prepared layers, checkpointing."""
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

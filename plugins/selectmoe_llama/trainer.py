"""The LoRA trainer: additions to a target model, learned from what was selected."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from selectmoe_core.artifacts import Facts
from selectmoe_core.models import ModelRef
from selectmoe_core.protocols import ExampleSource, Job
from selectmoe_core.training import attach, repeatable, train, training_arguments
from selectmoe_llama.adapter import (
    check_architecture,
    load_with_additions,
    save_adapter,
    save_merged,
)
from selectmoe_llama.batches import (
    Collator,
    Split,
    StepSampler,
    TrainingRows,
    pass_tokens,
    split_batch,
)
from selectmoe_llama.config import LoraTrainingConfig
from selectmoe_llama.packed_trainer import PackedTrainer

MERGED = "merged"


class LlamaLora:
    """Fine-tunes a Llama-architecture model on the examples it is given."""

    def __init__(self, config: LoraTrainingConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise where the batch does not divide or the model's type is one it cannot train."""
        split_batch(self.config, job.world.size)
        if job.inputs.model is not None:
            check_architecture(job.inputs.model, job)

    def train(self, model: ModelRef, examples: ExampleSource, out: Path, job: Job) -> Facts:
        """Train and write the adapter; a run that finds checkpoints goes on from the newest.

        Raises:
            ModelError: the model is not Llama-like, or does not load whole.
            RecipeError: the total batch does not divide.
            StageError: no token counts, a loss that is not finite, checkpoints of another device.
        """
        split_batch(self.config, job.world.size)  # before anything is loaded
        check_architecture(model, job)
        with repeatable(job, "train") as checkpoint:
            set_seed(job.seed)
            tokenizer = job.models.tokenizer(model)
            rows = TrainingRows(examples.encoded(tokenizer))
            length, tokens = float(rows.lengths.mean()), pass_tokens(self.config, job.device)
            split = split_batch(self.config, job.world.size, length, tokens)
            network = load_with_additions(model, self.config, job)
            use_cache = network.config.use_cache
            trainer = self._trainer(network, rows, split, job)
            start = time.monotonic()
            train(trainer, checkpoint)
            facts = self._facts(trainer, rows, len(examples), time.monotonic() - start)
            network.config.use_cache = use_cache  # the Trainer switches it off for good
            if job.world.main:
                self._save(network, tokenizer, out)
            return facts

    def _trainer(self, network: Any, rows: TrainingRows, split: Split, job: Job) -> PackedTrainer:  # noqa: ANN401
        config = self.config
        arguments = training_arguments(
            job,
            config,
            per_device_train_batch_size=split.batch,
            gradient_accumulation_steps=split.accumulation,
            bf16=job.dtype == "bfloat16",
            save_strategy="no",  # the clock decides
        )
        trainer = PackedTrainer(
            model=network,
            args=arguments,
            train_dataset=rows,
            data_collator=Collator(packing=config.packing, packed_length=config.packed_length),
            sampler=StepSampler(rows.lengths, split, job.seed, packing=config.packing),
            job=job,
        )
        attach(trainer, job, "fine-tuning", checkpoint_minutes=config.checkpoint_minutes)
        return trainer

    def _save(self, network: Any, tokenizer: Any, out: Path) -> None:  # noqa: ANN401
        out.mkdir(parents=True, exist_ok=True)
        save_adapter(network, out)
        tokenizer.save_pretrained(out)
        if self.config.merge:
            save_merged(network, tokenizer, out.parent / MERGED)

    def _facts(
        self, trainer: PackedTrainer, rows: TrainingRows, examples: int, seconds: float
    ) -> Facts:
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        facts: dict[str, Any] = {
            "steps": trainer.state.global_step,
            "epochs": round(float(trainer.state.epoch or 0.0), 4),
            "examples": len(rows),
            "examples_without_a_counted_token": examples - len(rows),
            "tokens": int(rows.lengths.sum()),
            "first_loss": losses[0] if losses else None,
            "final_loss": losses[-1] if losses else None,
            "trainable_parameters": trainer.get_num_trainable_parameters(),
            "seconds": round(seconds, 3),
            "tokens_per_second": round(trainer.trained_tokens / max(seconds, 1e-9), 1),
            "threads": torch.get_num_threads(),
        }
        if trainer.args.device.type == "cuda":
            facts["peak_memory"] = torch.cuda.max_memory_allocated(trainer.args.device)
        return facts

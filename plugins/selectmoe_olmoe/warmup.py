"""The warm-up trainer: teach the router of a converted model what is worth an expert."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from selectmoe_core.artifacts import Facts
from selectmoe_core.models import ModelRef
from selectmoe_core.protocols import ExampleSource, Job
from selectmoe_core.training import attach, repeatable, train, training_arguments
from selectmoe_olmoe.batches import TrainingRows, collate
from selectmoe_olmoe.config import WarmupConfig
from selectmoe_olmoe.trainable import check_dtype, everything, load_trainable, save_trained
from selectmoe_olmoe.trainer import Terms, WarmupTrainer

SHOWN = ("loss", "cross_entropy", "balance", "constraint", "trash_share")


class SelectMoeWarmup:
    """Trains a Select-MoE model on the examples it is given."""

    def __init__(self, config: WarmupConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise where the stage is to compute in a dtype that it cannot train in."""
        check_dtype(job)

    def train(self, model: ModelRef, examples: ExampleSource, out: Path, job: Job) -> Facts:
        """Train and write the result; a run that finds checkpoints goes on from the newest.

        Raises:
            ModelError: Not a Select-MoE model, or one that does not load whole.
            DataError: No token of the examples counts.
            StageError: A loss that is not finite, checkpoints of other circumstances.
        """
        with repeatable(job, "warmup") as checkpoint:
            set_seed(job.seed)
            tokenizer = job.models.tokenizer(model)
            rows = TrainingRows(examples.encoded(tokenizer))
            network = load_trainable(model, self.config, job)
            use_cache = network.config.use_cache
            trainer = self._trainer(model, network, rows, job)
            start = time.monotonic()
            train(trainer, checkpoint)
            facts = self._facts(trainer, rows, len(examples), time.monotonic() - start)
            network.config.use_cache = use_cache  # the Trainer switches it off for good
            if job.world.main:
                out.mkdir(parents=True, exist_ok=True)
                save_trained(network, model, out, self.config, job, tokenizer)
            return facts

    def _trainer(
        self,
        base: ModelRef,
        network: Any,  # noqa: ANN401
        rows: TrainingRows,
        job: Job,
    ) -> WarmupTrainer:
        config = self.config
        arguments = training_arguments(
            job,
            activation_checkpointing=config.activation_checkpointing,
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation,
            learning_rate=config.learning_rate,
            num_train_epochs=config.epochs,
            max_steps=config.max_steps or -1,
            warmup_steps=config.warmup_ratio,
            lr_scheduler_type=config.scheduler,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            bf16=everything(config) and job.dtype == "bfloat16",
            save_strategy="steps" if config.checkpoint_every else "no",  # the clock comes on top
            save_steps=config.checkpoint_every or 1,
        )
        trainer = WarmupTrainer(
            model=network,
            args=arguments,
            train_dataset=rows,
            data_collator=collate,
            terms=_terms(network.config),
            base=base,
            job=job,
            statistics=config.statistics,
            keep_every=config.checkpoint_every,
        )
        attach(trainer, job, "warm-up", checkpoint_minutes=config.checkpoint_minutes)
        return trainer

    def _facts(
        self, trainer: WarmupTrainer, rows: TrainingRows, examples: int, seconds: float
    ) -> Facts:
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        facts: dict[str, Any] = {
            "steps": trainer.state.global_step,
            "epochs": round(float(trainer.state.epoch or 0.0), 4),
            "examples": len(rows),
            "examples_without_a_counted_token": examples - len(rows),
            "tokens": int(rows.lengths.sum()),
            "trainable_parameters": trainer.get_num_trainable_parameters(),
            "first": {key: steps[0][key] for key in SHOWN if key in steps[0]} if steps else {},
            "final": {key: steps[-1][key] for key in SHOWN if key in steps[-1]} if steps else {},
            "seconds": round(seconds, 3),
            "tokens_per_second": round(trainer.trained_tokens / max(seconds, 1e-9), 1),
            "threads": torch.get_num_threads(),
        }
        if trainer.args.device.type == "cuda":
            facts["peak_memory"] = torch.cuda.max_memory_allocated(trainer.args.device)
        return facts


def _terms(config: Any) -> Terms:  # noqa: ANN401
    return Terms(
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        balance_weight=config.router_aux_loss_coef,
        balance_over=config.balance_over,
        constraint_weight=config.constraint_loss_weight,
        alpha=config.constraint_alpha,
        beta=config.constraint_beta,
    )

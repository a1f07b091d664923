"""The warm-up trainer: teach the router of a converted model what is worth an expert."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from selectmoe_core.artifacts import Facts
from selectmoe_core.config import suggest
from selectmoe_core.errors import DataError, StageError
from selectmoe_core.models import ModelRef
from selectmoe_core.protocols import ExampleSource, Job
from selectmoe_core.training import attach, repeatable, train, training_arguments
from selectmoe_olmoe.batches import TrainingRows, collate
from selectmoe_olmoe.config import WarmupConfig
from selectmoe_olmoe.contrastive import layer_weights
from selectmoe_olmoe.contrastive_trainer import Contrast, ContrastiveTrainer
from selectmoe_olmoe.trainable import check_dtype, everything, load_trainable, save_trained
from selectmoe_olmoe.trainer import Terms, WarmupTrainer
from selectmoe_olmoe.twins import TwinMaker, TwinRows, collate_pairs

SHOWN = (
    "loss",
    "cross_entropy",
    "balance",
    "constraint",
    "bce",
    "margin",
    "pair_accuracy",
    "sound_trash_mass",
    "damaged_trash_mass",
    "trash_share",
)


class SelectMoeWarmup:
    """Trains a Select-MoE model on the examples it is given."""

    def __init__(self, config: WarmupConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise for a dtype that cannot be trained in, or damage that nobody offers."""
        check_dtype(job)
        if self.config.objective == "contrastive":
            twin_maker(self.config, job)

    def train(self, model: ModelRef, examples: ExampleSource, out: Path, job: Job) -> Facts:
        """Train and write the result; a run that finds checkpoints goes on from the newest.

        Raises:
            ModelError: Not a Select-MoE model, or one that does not load whole.
            DataError: No token of the examples counts; none of them can be damaged.
            StageError: A loss that is not finite, checkpoints of other circumstances, options that
                do not fit the model.
        """
        with repeatable(job, "warmup") as checkpoint:
            set_seed(job.seed)
            tokenizer = job.models.tokenizer(model)
            rows = TrainingRows(examples.encoded(tokenizer))
            network = load_trainable(model, self.config, job)
            use_cache = network.config.use_cache
            pairs = self._pairs(rows, examples, tokenizer, job)
            trainer = self._trainer(model, network, pairs or rows, job)
            first = Counter(pairs.kinds if pairs else ())
            start = time.monotonic()
            train(trainer, checkpoint)
            facts = self._facts(trainer, rows, len(examples), time.monotonic() - start)
            if pairs is not None:
                facts = {**facts, "twins": dict(first)}
            network.config.use_cache = use_cache  # the Trainer switches it off for good
            if job.world.main:
                out.mkdir(parents=True, exist_ok=True)
                save_trained(network, model, out, self.config, job, tokenizer)
            return facts

    def _pairs(
        self,
        rows: TrainingRows,
        examples: ExampleSource,
        tokenizer: Any,  # noqa: ANN401
        job: Job,
    ) -> TwinRows | None:
        if self.config.objective == "constraint":
            return None
        pairs = TwinRows(rows, examples, twin_maker(self.config, job), tokenizer, job)
        if not any(pairs.kinds):
            raise DataError(
                f"none of the {len(rows)} examples can be damaged in any of the kinds given",
                hint="allow more kinds: [warmup] damages",
            )
        return pairs

    def _trainer(
        self,
        base: ModelRef,
        network: Any,  # noqa: ANN401
        rows: TrainingRows | TwinRows,
        job: Job,
    ) -> WarmupTrainer:
        config = self.config
        arguments = training_arguments(
            job,
            config,
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation,
            bf16=everything(config) and job.dtype == "bfloat16",
            save_strategy="steps" if config.checkpoint_every else "no",  # the clock comes on top
            save_steps=config.checkpoint_every or 1,
        )
        options: dict[str, Any] = {
            "model": network,
            "args": arguments,
            "train_dataset": rows,
            "terms": _terms(network.config, config),
            "base": base,
            "job": job,
            "statistics": config.statistics,
            "keep_every": config.checkpoint_every,
        }
        if isinstance(rows, TwinRows):
            contrast = _contrast(config, network.config.num_hidden_layers)
            trainer: WarmupTrainer = ContrastiveTrainer(
                data_collator=collate_pairs, contrast=contrast, **options
            )
        else:
            trainer = WarmupTrainer(data_collator=collate, **options)
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


def twin_maker(config: WarmupConfig, job: Job) -> TwinMaker:
    """Return what makes twins of the kinds that the options name.

    Raises:
        StageError: a kind that no plugin offers, or no kind at all.
    """
    rates = dict.fromkeys(job.damages, 1.0) if config.damages is None else dict(config.damages)
    for name in rates:
        if name not in job.damages:
            raise StageError(
                f"[warmup] damages: no plugin offers the kind '{name}'",
                hint=suggest(name, job.damages, otherwise="kinds"),
            )
    damages = tuple(job.damages[name] for name, rate in rates.items() if rate > 0)
    if not damages:
        raise StageError(
            "[warmup] damages: there is no kind of damage to make twins of",
            hint=f"kinds: {', '.join(job.damages) or 'none, since no plugin offers any'}",
        )
    return TwinMaker(damages, rates, job.seed)


def _contrast(config: WarmupConfig, layers: int) -> Contrast:
    try:
        weights = layer_weights(config.layer_weights, layers)
    except ValueError as error:
        raise StageError(f"[warmup] {error}", hint="one for each layer, not all zero") from None
    return Contrast(config.bce_weight, config.margin_weight, weights)


def _terms(config: Any, options: WarmupConfig) -> Terms:  # noqa: ANN401
    return Terms(
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        balance_weight=config.router_aux_loss_coef,
        balance_over=config.balance_over,
        constraint_weight=config.constraint_loss_weight,
        alpha=config.constraint_alpha,
        beta=config.constraint_beta,
        lm_weight=options.lm_weight,
    )

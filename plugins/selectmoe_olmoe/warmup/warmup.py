"""The warm-up trainer: teach the router of a converted model what is worth an expert."""

import logging
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from selectmoe_core import DataError, ExampleSource, Facts, Job, ModelRef, StageError, suggest
from selectmoe_core.training import attach, repeatable, shards_weights, train, training_arguments
from selectmoe_olmoe.config import WarmupConfig
from selectmoe_olmoe.fused.training_pass import PackedTraining, obstacle
from selectmoe_olmoe.warmup.batches import Split, TrainingRows, collate, split_step
from selectmoe_olmoe.warmup.contrastive_losses import layer_weights
from selectmoe_olmoe.warmup.contrastive_trainer import Contrast, ContrastiveTrainer
from selectmoe_olmoe.warmup.optimizers import optimizer_of
from selectmoe_olmoe.warmup.packed_rows import collate_packed, collate_packed_pairs
from selectmoe_olmoe.warmup.pairs import TwinMaker, TwinRows, collate_pairs
from selectmoe_olmoe.warmup.trainable import (
    check_dtype,
    check_sharding,
    everything,
    gathered,
    load_trainable,
    save_trained,
)
from selectmoe_olmoe.warmup.trainer import Terms, WarmupTrainer

log = logging.getLogger("selectmoe.olmoe")
PLAIN = "transformers"
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
        check_dtype(self.config, job)
        optimizer_of(self.config)
        self._split(job)
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
            check_sharding(self.config)
            tokenizer = job.models.tokenizer(model)
            rows = TrainingRows(examples.encoded(tokenizer), self.config.contrast_tokens)
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
            whole = trainer.whole_weights()
            if job.world.main:
                out.mkdir(parents=True, exist_ok=True)
                if whole is not None:
                    network = gathered(whole, model, self.config, job)
                save_trained(network, model, out, self.config, job, tokenizer)
            return facts

    def _split(self, job: Job) -> Split:
        config = self.config
        return split_step(config.batch_size, config.gradient_accumulation, job.world.size)

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
        config, split = self.config, self._split(job)
        kernel = pack(network, config, job)
        packed = kernel != PLAIN
        arguments = training_arguments(
            job,
            config,
            recomputes=packed,
            per_device_train_batch_size=split.batch,
            gradient_accumulation_steps=split.accumulation,
            bf16=job.dtype == "bfloat16" and not packed and _wide(config),
            # Else each copy of a batch would wait for the device to finish what it has.
            accelerator_config={"non_blocking": job.device != "cpu"},
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
            # Processes that share micro-batches go through them in step: none of them are joined.
            "pass_tokens": (config.pass_tokens if split.parts == 1 else 1) if packed else None,
            "split": split,
            "kernel": kernel,
            "optimizer_cls_and_kwargs": optimizer_of(config),
        }
        if isinstance(rows, TwinRows):
            trainer: WarmupTrainer = ContrastiveTrainer(
                data_collator=collate_packed_pairs if packed else collate_pairs,
                contrast=_contrast(config, network.config),
                **options,
            )
        else:
            trainer = WarmupTrainer(data_collator=collate_packed if packed else collate, **options)
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
            "kernel": trainer.kernel,
        }
        if trainer.args.device.type == "cuda":
            facts["peak_memory"] = torch.cuda.max_memory_allocated(trainer.args.device)
        return facts


def _wide(config: WarmupConfig) -> bool:
    """Whether weights are kept wider than a stage in bf16 computes."""
    return everything(config) and config.weights == "float32"


def pack(network: Any, config: WarmupConfig, job: Job) -> str:  # noqa: ANN401
    """Give the model its packed forward pass where that can run; return which kernels train."""
    model = network.get_base_model() if hasattr(network, "get_base_model") else network
    dtype = getattr(torch, job.dtype)
    sharded = "reads whole weights, and FSDP shares them out" if shards_weights() else None
    if (reason := sharded or obstacle(model, dtype)) is not None:
        log.info("kernel: %s (the packed one %s)", PLAIN, reason)
        return PLAIN
    model.packed_training = PackedTraining(
        model,
        dtype=dtype,
        recompute=config.activation_checkpointing,
        # Without weight its gradient is nothing, unless a head is there to be told so.
        head_gradient=config.lm_weight > 0 or everything(config),
    )
    kernel: str = model.packed_training.kernel
    log.info("kernel: %s", kernel)
    return kernel


def twin_maker(config: WarmupConfig, job: Job) -> TwinMaker:
    """Return what makes twins of the kinds that the options name.

    Raises:
        StageError: a kind that no plugin offers, or no kind at all.
    """
    rates = config.damages
    if rates is None:
        rates = {name: damage.rate for name, damage in job.damages.items()}
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


def _contrast(config: WarmupConfig, model: Any) -> Contrast:  # noqa: ANN401
    try:
        weights = layer_weights(config.layer_weights, model.num_hidden_layers)
    except ValueError as error:
        raise StageError(f"[warmup] {error}", hint="one for each layer, not all zero") from None
    together = config.contrast_layers == "together"
    alike = math.log(model.num_trash_experts / model.num_experts)
    return Contrast(config.bce_weight, config.margin_weight, weights, together, alike)


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

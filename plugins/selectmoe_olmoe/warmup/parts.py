"""The parts of the two warm-ups, which train the router of a converted model."""

import logging
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from selectmoe_core import DataError, ExampleSource, Facts, Job, ModelRef, StageError, suggest
from selectmoe_core.data import PairTable
from selectmoe_core.tokens import Tokenizer
from selectmoe_core.training import repeatable, shards_weights, training_arguments
from selectmoe_olmoe.config import ConstraintConfig, ContrastiveConfig, WarmupConfig
from selectmoe_olmoe.fused.training_pass import PackedTraining, obstacle
from selectmoe_olmoe.warmup.batches import (
    Join,
    Split,
    StepCollator,
    TrainingRows,
    collate,
    counts,
    split_step,
)
from selectmoe_olmoe.warmup.contrastive_losses import layer_weights
from selectmoe_olmoe.warmup.contrastive_trainer import Contrast, ContrastiveTrainer
from selectmoe_olmoe.warmup.load import ExpertLoad
from selectmoe_olmoe.warmup.optimizers import optimizer_of
from selectmoe_olmoe.warmup.packed_rows import (
    collate_packed,
    collate_packed_pairs,
    merged,
    packed_counts,
    packed_pair_counts,
)
from selectmoe_olmoe.warmup.pairs import CopyMaker, PairRows, collate_pairs, pair_counts
from selectmoe_olmoe.warmup.preferences import MixedPairs, PreferenceRows
from selectmoe_olmoe.warmup.trainable import (
    check_dtype,
    check_sharding,
    gathered,
    load_trainable,
    save_trained,
)
from selectmoe_olmoe.warmup.trainer import PLAIN, Terms, WarmupTrainer

log = logging.getLogger("selectmoe.olmoe")
TrainedRows = TrainingRows | PairRows | MixedPairs
SHOWN = (
    "loss",
    "cross_entropy",
    "balance",
    "constraint",
    "bce",
    "margin",
    "place_bce",
    "place_margin",
    "pair_accuracy",
    "clean_trash_mass",
    "corrupted_trash_mass",
    "trash_share",
)
"""The metrics of the first and the last step that the facts contain."""


class SelectMoeWarmup:
    """Trains a Select-MoE model on examples; a subclass defines the rows and the trainer."""

    def __init__(self, config: WarmupConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise for a dtype that cannot be used for training, or a batch that cannot be divided."""
        check_dtype(self.config, job)
        optimizer_of(self.config)
        self._split(job)

    def train(self, model: ModelRef, examples: ExampleSource, out: Path, job: Job) -> Facts:
        """Train and write the result; a run that finds checkpoints resumes from the newest.

        Raises:
            ModelError: not a Select-MoE model, or it does not load completely.
            DataError: no token of the examples counts, or none of them can be damaged.
            StageError: the loss is not finite, the checkpoints were made under other conditions, or
                options do not fit the model.
        """
        with repeatable(job, "warmup") as checkpoint:
            set_seed(job.seed)
            check_sharding(self.config)
            tokenizer = job.models.tokenizer(model)
            rows = self.rows(examples, tokenizer, job)
            about = self.about(rows)
            network = load_trainable(model, self.config, job)
            use_cache = network.config.use_cache
            trainer = self.trainer(model, network, rows, job)
            counted = rows.counted(len(examples))
            load = ExpertLoad(trainer, counted[0], self._split(job).batch)
            trainer.train_from(checkpoint)
            facts = {**trainer.facts(*counted), **_facts(trainer), **about, **load.facts()}
            network.config.use_cache = use_cache  # the Trainer switches it off permanently
            whole = trainer.whole_weights()
            if job.world.main:
                out.mkdir(parents=True, exist_ok=True)
                if whole is not None:
                    network = gathered(whole, model, self.config, job)
                save_trained(network, model, out, self.config, job, tokenizer)
            return facts

    def rows(self, examples: ExampleSource, tokenizer: Tokenizer, job: Job) -> TrainedRows:
        """Return the rows to train on."""
        raise NotImplementedError

    def about(self, rows: Any) -> Facts:  # noqa: ANN401, ARG002
        """Return facts about the rows before training."""
        return {}

    def trainer(
        self,
        base: ModelRef,
        network: Any,  # noqa: ANN401
        rows: TrainedRows,
        job: Job,
    ) -> WarmupTrainer:
        """Return the trainer of a loaded model."""
        config, split = self.config, self._split(job)
        kernel = pack(network, config, job)
        packed = kernel != PLAIN
        # Processes that share micro-batches must have the same passes, so none are joined.
        budget = config.pass_tokens if split.parts == 1 else 1
        arguments = training_arguments(
            job,
            config,
            learning_rate=config.peak_learning_rate,
            share=split.share,
            bf16=job.dtype == "bfloat16" and not packed and _wide(config),
            recomputes=packed,
            # Otherwise each copy of a batch would wait until the device has finished its work.
            accelerator_config={"non_blocking": job.device != "cpu"},
        )
        return self.built(
            network.config,
            model=network,
            args=arguments,
            train_dataset=rows,
            data_collator=self.collator(split, partial(merged, budget=budget), packed=packed),
            sampler=rows.sampler(split, job.seed),
            optimizer_cls_and_kwargs=optimizer_of(config),
            job=job,
            label="warm-up",
            checkpoint_minutes=config.checkpoint_minutes,
            keep_every=config.checkpoint_every,
            terms=_terms(network.config, config),
            base=base,
            statistics=config.statistics,
            kernel=kernel,
            shared=split.parts > 1,
        )

    def collator(self, split: Split, join: Join, *, packed: bool) -> StepCollator:
        """Return the collator of rows; ``join`` joins packed micro-batches into passes."""
        raise NotImplementedError

    def built(self, shape: Any, **options: Any) -> WarmupTrainer:  # noqa: ANN401, ARG002
        """Return the trainer of a model whose configuration is ``shape``."""
        return WarmupTrainer(**options)

    def _split(self, job: Job) -> Split:
        config = self.config
        return split_step(config.batch_size, config.micro_batch, job.world.size)


class SelectMoeConstraint(SelectMoeWarmup):
    """Trains the router with a tax on experts, as published."""

    def __init__(self, config: ConstraintConfig) -> None:
        super().__init__(config)

    def rows(self, examples: ExampleSource, tokenizer: Tokenizer, job: Job) -> TrainingRows:  # noqa: ARG002
        """Return the examples in which a token counts."""
        return TrainingRows(examples.encoded(tokenizer))

    def collator(self, split: Split, join: Join, *, packed: bool) -> StepCollator:
        """Return the collator of rows; ``join`` joins packed micro-batches into passes."""
        if packed:
            return StepCollator(split.batch, collate_packed, packed_counts, join)
        return StepCollator(split.batch, collate, counts)


class SelectMoeContrastive(SelectMoeWarmup):
    """Trains the router to separate clean examples from their corrupted copies."""

    config: ContrastiveConfig

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__(config)

    def check(self, job: Job) -> None:
        """Also raise for kinds of damage that no plugin offers."""
        super().check(job)
        copy_maker(self.config, job)

    def rows(
        self, examples: ExampleSource, tokenizer: Tokenizer, job: Job
    ) -> PairRows | MixedPairs:
        """Return the examples in which a token counts, each with its corrupted copy.

        Preference pairs come in addition, or in their place.
        """
        if job.inputs.pairs is None:
            return self._copies(examples, tokenizer, job)
        table = PairTable.open(job.inputs.pairs)
        real = PreferenceRows(table, self.config.contrast_tokens, tokenizer, job, self._window)
        made = None if table.share == 1 else self._copies(examples, tokenizer, job)
        return MixedPairs(made, real, table.share, job.seed)

    @property
    def _window(self) -> int | None:
        return self.config.place_window if self.config.place_weight else None

    def _copies(self, examples: ExampleSource, tokenizer: Tokenizer, job: Job) -> PairRows:
        rows = TrainingRows(examples.encoded(tokenizer), self.config.contrast_tokens)
        maker = copy_maker(self.config, job)
        pairs = PairRows(rows, examples, maker, tokenizer, job, self._window)
        if not any(pairs.kinds):
            raise DataError(
                f"none of the {len(rows)} examples can be damaged by the given kinds",
                hint="allow more kinds: [warmup] damages",
            )
        return pairs

    def about(self, rows: PairRows | MixedPairs) -> Facts:
        """Return how many copies of the first epoch are of each kind, and the preference pairs."""
        if isinstance(rows, PairRows):
            return {"corrupted_copies": dict(Counter(rows.kinds))}
        return {
            **(self.about(rows.made) if rows.made else {}),
            "preference_pairs": len(rows.real),
            "preference_pairs_of_an_epoch": len(rows.drawn),
            "preference_pairs_left_out": rows.real.given - len(rows.real),
        }

    def collator(self, split: Split, join: Join, *, packed: bool) -> StepCollator:
        """Return the collator of pairs; ``join`` joins packed micro-batches into passes."""
        if packed:
            return StepCollator(split.batch, collate_packed_pairs, packed_pair_counts, join)
        return StepCollator(split.batch, collate_pairs, pair_counts)

    def built(self, shape: Any, **options: Any) -> WarmupTrainer:  # noqa: ANN401
        """Return the trainer of a model whose configuration is ``shape``."""
        return ContrastiveTrainer(contrast=_contrast(self.config, shape), **options)


def _facts(trainer: WarmupTrainer) -> Facts:
    steps = trainer.logged_steps
    return {
        "first": {key: steps[0][key] for key in SHOWN if key in steps[0]} if steps else {},
        "final": {key: steps[-1][key] for key in SHOWN if key in steps[-1]} if steps else {},
        "kernel": trainer.kernel,
    }


def _wide(config: WarmupConfig) -> bool:
    """Whether weights are stored in a wider dtype than bf16."""
    return config.all_weights and config.weights == "float32"


def pack(network: Any, config: WarmupConfig, job: Job) -> str:  # noqa: ANN401
    """Give the model its packed forward pass if that can run; return the name of the kernels."""
    model = network.get_base_model() if hasattr(network, "get_base_model") else network
    dtype = getattr(torch, job.dtype)
    sharded = "reads whole weights, but FSDP splits them" if shards_weights() else None
    if (reason := sharded or obstacle(model, dtype)) is not None:
        log.info("kernel: %s (the packed one %s)", PLAIN, reason)
        return PLAIN
    model.packed_training = PackedTraining(
        model,
        dtype=dtype,
        recompute=config.activation_checkpointing,
        # With weight 0 its gradient is zero, unless the head itself is trained.
        head_gradient=config.answer_weight > 0 or config.all_weights,
    )
    kernel: str = model.packed_training.kernel
    log.info("kernel: %s", kernel)
    return kernel


def copy_maker(config: ContrastiveConfig, job: Job) -> CopyMaker:
    """Return the maker of corrupted copies of the kinds that the options name.

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
            "[warmup] damages: there is no kind of damage for the corrupted copies",
            hint=f"kinds: {', '.join(job.damages) or 'none, since no plugin offers any'}",
        )
    return CopyMaker(damages, rates, job.seed)


def _contrast(config: ContrastiveConfig, model: Any) -> Contrast:  # noqa: ANN401
    try:
        weights = layer_weights(config.layer_weights, model.num_hidden_layers)
    except ValueError as error:
        raise StageError(
            f"[warmup] {error}", hint="give one weight per layer, and at least one above zero"
        ) from None
    together = config.contrast_layers == "together"
    alike = math.log(model.num_trash_experts / model.num_experts)
    return Contrast(
        config.bce_weight, config.margin_weight, weights, together, alike, config.place_weight
    )


def _terms(config: Any, options: WarmupConfig) -> Terms:  # noqa: ANN401
    return Terms(
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        balance_weight=config.router_aux_loss_coef,
        balance_over=config.balance_over,
        constraint_weight=config.constraint_loss_weight,
        alpha=config.constraint_alpha,
        beta=config.constraint_beta,
        lm_weight=options.answer_weight,
    )

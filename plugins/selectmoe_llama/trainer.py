"""The part that fine-tunes: LoRA weights of a target model, trained on the selection."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from peft.helpers import disable_input_dtype_casting
from transformers import set_seed

from selectmoe_core import ExampleSource, Facts, Job, ModelRef, StageError
from selectmoe_core.training import (
    KeepCheckpoints,
    kept_checkpoints,
    repeatable,
    shards_weights,
    training_arguments,
)
from selectmoe_llama.adapter import (
    check_architecture,
    load_with_lora,
    lora_weights,
    save_adapter,
    save_merged,
)
from selectmoe_llama.attention import Attention, attention_for
from selectmoe_llama.batches import Collator, StepSampler, TrainingRows, share_of
from selectmoe_llama.card import write_card
from selectmoe_llama.config import LoraTrainingConfig, pass_tokens
from selectmoe_llama.packed_model import PackedModel
from selectmoe_llama.packed_trainer import PackedTrainer
from selectmoe_llama.quantized import check_installed

log = logging.getLogger("selectmoe.llama")

MERGED = "merged"
COMPILING_PAYS = 4e6 * 6.7e9
"""Tokens times parameters that a process must train before compiled layers save time: compilation
takes 86 s on an H100, and each token of a 7B model saves 22 microseconds."""


class LlamaLora:
    """Fine-tunes a Llama-architecture model on the examples it is given."""

    def __init__(self, config: LoraTrainingConfig) -> None:
        self.config = config

    def check(self, job: Job) -> None:
        """Raise if the batch cannot be divided, or if the model's type cannot be trained."""
        share_of(self.config, job.world.size)
        if self.config.quantization != "none":
            check_installed()
        if job.inputs.model is not None:
            check_architecture(job.inputs.model, job)

    def train(self, model: ModelRef, examples: ExampleSource, out: Path, job: Job) -> Facts:
        """Train and write the adapter; a run that finds checkpoints resumes from the newest.

        Raises:
            ModelError: the model is not Llama-like, or does not load completely.
            RecipeError: the batch cannot be divided among the processes.
            DataError: no token of the examples counts.
            StageError: the loss is not finite, or the checkpoints are of another device.
        """
        share_of(self.config, job.world.size)  # before anything is loaded
        check_architecture(model, job)
        if shards_weights():
            raise StageError(
                "llama-lora: FSDP can only split weights of one dtype, but LoRA weights are fp32",
                hint="name the stage that uses FSDP, another one: --accelerate-config STAGE=FILE",
            )
        with repeatable(job, "train, or --fresh warmup") as checkpoint:
            set_seed(job.seed)
            tokenizer = job.models.tokenizer(model)
            rows = TrainingRows(examples.encoded(tokenizer))
            network = load_with_lora(model, self.config, job)
            trainer = build_trainer(self.config, network, rows, job)
            # Autocast casts anyway, so PEFT need not cast to the fp32 of LoRA first.
            with disable_input_dtype_casting(network, active=job.dtype != "float32"):
                trainer.train_from(checkpoint)
            facts = _facts(trainer, rows, len(examples))
            if self.config.checkpoint_every is not None:
                facts = {**facts, "kept_checkpoints": len(kept_checkpoints(job.checkpoints))}
            if job.world.main:
                self._save(network, model, tokenizer, out, job)
                write_card(out, model, self.config, facts, job)
            return facts

    def _save(
        self,
        network: Any,  # noqa: ANN401
        model: ModelRef,
        tokenizer: Any,  # noqa: ANN401
        out: Path,
        job: Job,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        save_adapter(network, out)
        tokenizer.save_pretrained(out)
        if not self.config.merge:
            return
        if self.config.quantization != "none":
            # On the CPU: if 4 bits were requested, 16 bits may not fit on the device.
            base = job.models.load(model, dtype=job.dtype, device="cpu")
            network = job.models.adapt(base, out)
        save_merged(network, tokenizer, out.parent / MERGED)


def build_trainer(
    config: LoraTrainingConfig,
    network: Any,  # noqa: ANN401
    rows: TrainingRows,
    job: Job,
) -> PackedTrainer:
    """Return the trainer of PEFT's model ``network`` on ``rows``."""
    attention = attention_for(network.config, job.device, job.dtype, packing=config.packing)
    share = share_of(config, job.world.size)
    arguments = training_arguments(
        job,
        config,
        learning_rate=config.learning_rate,
        share=share,
        bf16=job.dtype == "bfloat16",
        recomputes=True,
    )
    sampler = StepSampler(
        rows.lengths,
        share,
        job.world.size,
        job.seed,
        tokens=pass_tokens(config, job.device),
        most=config.per_device_batch,
        packing=attention.packed,
    )
    model = PackedModel(
        network,
        attention,
        compiled=compiles(config, attention, network, rows, job),
        recomputed=config.activation_checkpointing,
    )
    log.info("attention: %s; layers %scompiled", attention.name, "" if model.compiled else "not ")
    trainer = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=Collator(attention),
        sampler=sampler,
        job=job,
        label="fine-tuning",
        checkpoint_minutes=config.checkpoint_minutes,
    )
    if (every := steps_between(config, len(rows))) is not None:
        keep = KeepCheckpoints(
            job.checkpoints,
            every,
            config.keep_checkpoints,
            lora_weights(network),
            partial(save_adapter, network),
        )
        trainer.add_callback(keep)
    return trainer


def steps_between(config: LoraTrainingConfig, rows: int) -> int | None:
    """Return the steps between checkpoints that are kept, for so many rows; ``None``: none."""
    if config.checkpoint_every == "epoch":
        return -(-rows // config.batch_size)
    return config.checkpoint_every


def compiles(
    config: LoraTrainingConfig,
    attention: Attention,
    network: Any,  # noqa: ANN401
    rows: TrainingRows,
    job: Job,
) -> bool:
    """Return whether to compile the layers; by default if that saves time."""
    if config.compile is not None:
        return config.compile
    if not attention.compiles or config.quantization != "none":
        return False
    epochs = config.epochs
    if config.max_steps is not None:
        epochs = config.max_steps * config.batch_size / len(rows)
    own = epochs * float(rows.lengths.sum()) / job.world.size
    needed = COMPILING_PAYS / network.get_base_model().num_parameters()
    log.info("%.2g tokens a process; compiling pays from %.2g on (option compile)", own, needed)
    return own >= needed


def _facts(trainer: PackedTrainer, rows: TrainingRows, examples: int) -> Facts:
    losses = [entry["loss"] for entry in trainer.logged_steps]
    return {
        **trainer.facts(rows, examples),
        "first_loss": losses[0] if losses else None,
        "final_loss": losses[-1] if losses else None,
        "attention": trainer.packed.attention.name,
        "compiled": trainer.packed.compiled,
    }

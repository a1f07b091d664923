"""The arguments of transformers' Trainer: no output, the job's seed and device."""

import dataclasses
from typing import Any, Protocol

from transformers import TrainingArguments

from selectmoe_core.plugin.protocols import Job


class TrainingOptions(Protocol):
    """Options that every trainer's configuration has."""

    @property
    def epochs(self) -> float:
        """Passes over the examples."""
        ...

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps after which to stop."""
        ...

    @property
    def scheduler(self) -> str:
        """The schedule of the learning rate after its warm-up."""
        ...

    @property
    def warmup_ratio(self) -> float:
        """Share of the steps in which the learning rate rises from zero."""
        ...

    @property
    def weight_decay(self) -> float:
        """Weight decay of AdamW."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """The norm that gradients are clipped to."""
        ...

    @property
    def activation_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        ...


def checkpointing(*, on: bool) -> dict[str, Any]:
    """Return the fields of ``TrainingArguments`` that say whether activations are recomputed."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    # transformers 5.23 renamed the option; the supported releases use both names.
    option = "activation" if "activation_checkpointing" in names else "gradient"
    return {
        f"{option}_checkpointing": on,
        f"{option}_checkpointing_kwargs": {"use_reentrant": False},
    }


def training_arguments(
    job: Job,
    config: TrainingOptions,
    *,
    learning_rate: float,
    share: int,
    bf16: bool,
    recomputes: bool = False,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return ``TrainingArguments`` for ``StepTrainer``, without automatic choices.

    Args:
        job: what the trainer knows about its run.
        config: its options.
        learning_rate: the peak.
        share: examples of an optimizer step in one process.
        bf16: whether to compute in bf16 with weights that are kept wider (autocast).
        recomputes: whether the model itself implements ``activation_checkpointing``.
        options: further fields of ``TrainingArguments``.
    """
    cpu = job.device == "cpu"
    arguments = TrainingArguments(
        output_dir=str(job.checkpoints),
        learning_rate=learning_rate,
        per_device_train_batch_size=share,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        warmup_steps=config.warmup_ratio,
        lr_scheduler_type=config.scheduler,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch" if cpu else "adamw_torch_fused",
        bf16=bf16,
        use_cpu=cpu,
        seed=job.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean of earlier steps
        save_strategy="no",  # the callback Checkpoints decides
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        ddp_find_unused_parameters=False,
        **checkpointing(on=config.activation_checkpointing and not recomputes),
        **options,
    )
    if arguments.n_gpu > 1:
        # One process would replicate the model on all GPUs it sees, and no public option stops it.
        arguments._n_gpu = 1  # noqa: SLF001
    return arguments

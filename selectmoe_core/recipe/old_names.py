"""Names that other programs give a recipe's keys, and where that is said here."""

from collections.abc import Iterator, Mapping
from typing import Any

OLD_NAMES: Mapping[str, str] = {
    "selection_percentage": "select.fraction",
    "model_checkpoint_path": "score.model, and score.base_model for a file full_rank_weights.pt",
    "selector_model.path": "warmup.model",
    "selector_model.name": "warmup.model",
    "model.name": "train.model",
    "dataset.data_path": "train.data",
    "dataset.data_dir": "pool.path",
    "dataset.dataset_names": "pool.sources",
    "dataset.subset_ratio": "warmup.subset_ratio, or score.subset_ratio when scoring",
    "dataset.max_sequence_length": "chat.max_length",
    "dataset.shuffle": "nothing: every draw follows from the recipe's seed",
    "data_process.batch_size": "nothing: a pass holds as many tokens as fit; score.batch_tokens",
    "training.peft_mode": "warmup.peft_mode",
    "training.learning_rate": "warmup.learning_rate or train.learning_rate",
    "training.batch_size": "warmup.batch_size or train.batch_size",
    "training.epochs": "warmup.epochs or train.epochs",
    "training.scheduler": "warmup.scheduler or train.scheduler",
    "training.warmup_ratio": "warmup.warmup_ratio or train.warmup_ratio",
    "training.gradient_checkpointing": "train.activation_checkpointing",
    "training.gradient_accumulation_steps": "nothing: batch_size is the total of a step",
    "training.trash_can_init_mean": "convert.trash_can_init_mean",
    "training.trash_can_init_std": "convert.trash_can_init_std",
    "training.constraint_loss_weight": "convert.constraint_loss_weight",
    "training.trash_can_loss_alpha": "convert.constraint_alpha",
    "training.trash_can_loss_beta": "convert.constraint_beta",
    "training.lora.r": "train.lora_rank or warmup.lora_rank",
    "training.lora.lora_alpha": "train.lora_alpha or warmup.lora_alpha",
    "training.lora.lora_dropout": "train.lora_dropout or warmup.lora_dropout",
    "training.lora.target_modules": "train.target_modules",
    "training.output_dir": "nothing: --outputs says where results go",
    "output_dir": "nothing: --outputs says where results go",
    "outputs": "nothing in a recipe: --outputs says where results go",
    "lr": "train.learning_rate or warmup.learning_rate",
    "learning_rate": "train.learning_rate or warmup.learning_rate",
    "epochs": "train.epochs or warmup.epochs",
    "batch_size": "train.batch_size or warmup.batch_size",
    "model": "train.model, warmup.model, score.model, evaluate.model or convert.model",
    "data": "train.data or pool.path",
    "data_path": "train.data or pool.path",
    "adapter": "evaluate.adapter",
    "peft": "evaluate.adapter",
    "tasks": "evaluate.tasks",
    "fraction": "select.fraction",
    "subset_ratio": "pool.subset_ratio, warmup.subset_ratio, score.subset_ratio or "
    "train.subset_ratio",
    "max_length": "chat.max_length",
}
"""Keys as the user writes them, in full, and what to write instead."""


def renamed(key: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Yield each known old name within an unknown key of a recipe, and what it is called here."""
    if key in OLD_NAMES:
        yield key, OLD_NAMES[key]
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from renamed(f"{key}.{name}", item)

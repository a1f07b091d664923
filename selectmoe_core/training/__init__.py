"""What the trainers share: the trainer, its arguments, checkpoints and losses."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.runtime.distributed import (
        gathers_weights,
        shards_weights,
    )
    from selectmoe_core.training.arguments import training_arguments
    from selectmoe_core.training.checkpoints import repeatable
    from selectmoe_core.training.keeping import KeepCheckpoints
    from selectmoe_core.training.kept import KeptCheckpoint, kept_checkpoints
    from selectmoe_core.training.losses import (
        CountedRows,
        head_logits,
        summed_cross_entropy,
        summed_head_loss,
    )
    from selectmoe_core.training.trainer import StepTrainer

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.runtime.distributed": "gathers_weights shards_weights",
        "selectmoe_core.training.arguments": "training_arguments",
        "selectmoe_core.training.checkpoints": "repeatable",
        "selectmoe_core.training.keeping": "KeepCheckpoints",
        "selectmoe_core.training.kept": "KeptCheckpoint kept_checkpoints",
        "selectmoe_core.training.losses": "CountedRows head_logits summed_cross_entropy "
        "summed_head_loss",
        "selectmoe_core.training.trainer": "StepTrainer",
    },
)

__all__ = [
    "CountedRows",
    "KeepCheckpoints",
    "KeptCheckpoint",
    "StepTrainer",
    "gathers_weights",
    "head_logits",
    "kept_checkpoints",
    "repeatable",
    "shards_weights",
    "summed_cross_entropy",
    "summed_head_loss",
    "training_arguments",
]

"""What the trainers share: loops, checkpoints, losses."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.runtime.distributed import (
        gathers_weights,
        shards_weights,
    )
    from selectmoe_core.training.losses import (
        CountedRows,
        summed_cross_entropy,
        summed_head_loss,
    )
    from selectmoe_core.training.trainer import (
        COMPLETE,
        attach,
        finish_checkpoint,
        record_step,
        repeatable,
        train,
        training_arguments,
    )

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.runtime.distributed": "gathers_weights shards_weights",
        "selectmoe_core.training.losses": "CountedRows summed_cross_entropy summed_head_loss",
        "selectmoe_core.training.trainer": "COMPLETE attach finish_checkpoint record_step "
        "repeatable train training_arguments",
    },
)

__all__ = [
    "COMPLETE",
    "CountedRows",
    "attach",
    "finish_checkpoint",
    "gathers_weights",
    "record_step",
    "repeatable",
    "shards_weights",
    "summed_cross_entropy",
    "summed_head_loss",
    "train",
    "training_arguments",
]

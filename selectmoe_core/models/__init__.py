"""Models by reference: loading, saving, digests, batches, routers."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.models.batches import (
        Batch,
        padded,
        within_budget,
    )
    from selectmoe_core.models.configuration import (
        CONFIG,
        INDEX,
        LLAMA_LIKE,
        SELECTOR,
        read_config,
        read_index,
        read_object,
    )
    from selectmoe_core.models.models import (
        PARTIAL_WEIGHTS,
        Models,
        save_partial,
    )
    from selectmoe_core.models.references import (
        model_folder,
    )
    from selectmoe_core.models.routers import (
        RouterSignals,
    )
    from selectmoe_core.models.transfer import (
        OnItsWay,
    )
    from selectmoe_core.runtime.writing import give_usual_permissions

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.models.batches": "Batch padded within_budget",
        "selectmoe_core.models.configuration": "CONFIG INDEX LLAMA_LIKE SELECTOR "
        "read_config read_index read_object",
        "selectmoe_core.models.models": "Models PARTIAL_WEIGHTS save_partial",
        "selectmoe_core.models.references": "model_folder",
        "selectmoe_core.models.routers": "RouterSignals",
        "selectmoe_core.models.transfer": "OnItsWay",
        "selectmoe_core.runtime.writing": "give_usual_permissions",
    },
)

__all__ = [
    "CONFIG",
    "INDEX",
    "LLAMA_LIKE",
    "PARTIAL_WEIGHTS",
    "SELECTOR",
    "Batch",
    "Models",
    "OnItsWay",
    "RouterSignals",
    "give_usual_permissions",
    "model_folder",
    "padded",
    "read_config",
    "read_index",
    "read_object",
    "save_partial",
    "within_budget",
]

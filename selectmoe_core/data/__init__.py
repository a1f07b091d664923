"""Examples, pools, scores and corrupted copies."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.data.corruption import (
        plant_some,
        random_of,
    )
    from selectmoe_core.data.examples import (
        Part,
        Role,
        messages_from,
    )
    from selectmoe_core.data.pool import (
        Pool,
        hash_ids,
    )

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.data.corruption": "plant_some random_of",
        "selectmoe_core.data.examples": "Part Role messages_from",
        "selectmoe_core.data.pool": "Pool hash_ids",
    },
)

__all__ = [
    "Part",
    "Pool",
    "Role",
    "hash_ids",
    "messages_from",
    "plant_some",
    "random_of",
]

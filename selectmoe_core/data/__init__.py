"""Examples, pools, scores, vectors and corrupted copies."""

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
        content_id,
        conversation_problem,
    )
    from selectmoe_core.data.pairs import (
        PairTable,
    )
    from selectmoe_core.data.pool import (
        Pool,
        hash_ids,
    )
    from selectmoe_core.data.turns import (
        is_given,
        kind_of,
        messages_from,
    )
    from selectmoe_core.data.vectors import (
        Vectors,
    )

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.data.corruption": "plant_some random_of",
        "selectmoe_core.data.examples": "Part Role content_id conversation_problem",
        "selectmoe_core.data.pairs": "PairTable",
        "selectmoe_core.data.pool": "Pool hash_ids",
        "selectmoe_core.data.turns": "is_given kind_of messages_from",
        "selectmoe_core.data.vectors": "Vectors",
    },
)

__all__ = [
    "PairTable",
    "Part",
    "Pool",
    "Role",
    "Vectors",
    "content_id",
    "conversation_problem",
    "hash_ids",
    "is_given",
    "kind_of",
    "messages_from",
    "plant_some",
    "random_of",
]

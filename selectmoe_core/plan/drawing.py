"""How many rows a random draw keeps where the selector itself cannot draw."""

from collections.abc import Mapping
from typing import Any

from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry

TOP_K = "top-k"


def top_k_options(
    registry: Registry, use: str, options: Mapping[str, Any], *, where: str
) -> dict[str, Any] | None:
    """Return the options of ``top-k`` that keep as many rows as a selector with an option ``k``.

    Such a selector reads more than scores (clusters, target tasks), so that a random draw of the
    same size is made by ``top-k``. ``None`` for a selector without ``k``.
    """
    fields = registry.get(Kind.SELECTOR, use, where=where).component.config.model_fields
    if "k" not in fields:
        return None
    known = registry.get(Kind.SELECTOR, TOP_K, where=where).component.config.model_fields
    same = {name: value for name, value in options.items() if name in known}
    return {"k": fields["k"].default, **same}

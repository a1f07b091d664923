"""Stages whose table stands inside the table of another stage."""

from collections.abc import Mapping

WITHIN: Mapping[str, str] = {"pairs": "warmup"}
"""The stage that each of them stands in: ``[warmup.pairs]``."""


def table_path(stage: str) -> tuple[str, ...]:
    """Return the keys that lead to the table of a stage."""
    return (WITHIN[stage], stage) if stage in WITHIN else (stage,)

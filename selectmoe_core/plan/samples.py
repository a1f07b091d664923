"""``[score] subset_ratio``: the pool that is scored is a sample of the one that warm-up reads."""

from dataclasses import replace

from selectmoe_core.plan.binding import Binder
from selectmoe_core.recipe.recipe import Recipe, StageTable

WHOLE = "pool:warmup"
"""The key of the pool that warm-up reads, where scores read a sample of it."""


def scored_pool(pool: StageTable, recipe: Recipe, binder: Binder) -> StageTable:
    """Return the table of the pool that is scored and selected from: the whole pool, or a sample.

    Every score must name the same sample: scores of different rows can be neither blended nor
    compared.
    """
    tables = list(recipe.scores.values())
    ratios = {table.own.subset_ratio for table in tables}
    if ratios <= {None}:
        return pool
    if len(ratios) > 1:
        what = "the scores have different values of subset_ratio"
        binder.problem("[score]", what, "give every score the same one, or set pool.subset_ratio")
        return pool
    (ratio,) = ratios
    assert ratio is not None
    seed = next((table.own.seed for table in tables if table.own.seed is not None), pool.own.seed)
    share = ratio * (pool.own.subset_ratio or 1.0)
    return replace(pool, own=pool.own.model_copy(update={"subset_ratio": share, "seed": seed}))


def without_ratio(table: StageTable) -> StageTable:
    """Return a score's table without its sample, which its pool is already."""
    return replace(table, own=table.own.model_copy(update={"subset_ratio": None}))

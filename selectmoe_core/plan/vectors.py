"""Which nodes read targets, vectors and checkpoints, and the nodes that make them."""

from collections.abc import Collection, Iterator, Mapping

from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.node import Step
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.recipe.recipe import Recipe, StageTable

TARGETS, EMBED, EMBED_TARGETS = "targets", "embed", "embed:targets"
"""The nodes of the target examples, of the pool's vectors and of the targets' vectors. A component
that reads one has its key as the role of the input."""
CHECKPOINTS = "checkpoints"


def embed_steps(recipe: Recipe, binder: Binder, there: Collection[str]) -> Iterator[Step]:
    """Yield the nodes of the vectors: the pool's, and the targets' if the recipe has targets.

    Args:
        recipe: the recipe.
        binder: finds the embedder, and keeps mistakes.
        there: the keys of the nodes so far.
    """
    table = recipe.tables.get("embed")
    if table is None:
        return
    needs = binder.needs(table, Kind.EMBEDDER)
    above = model_input(table, needs, binder, there)
    above |= checkpoints_input(table, needs, binder, there)
    yield Step(EMBED, table, {"pool": "pool", **above})
    if TARGETS in recipe.tables:
        yield Step(EMBED_TARGETS, table, {TARGETS: TARGETS, **above})


def model_input(
    table: StageTable, needs: frozenset[Need], binder: Binder, there: Collection[str]
) -> dict[str, str]:
    """Return the node whose model a component reads, if its table names none."""
    if Need.MODEL not in needs or table.own.model:
        return {}
    for stage in ("warmup", "convert"):
        if stage in there:
            return {"model": stage}
    binder.problem(
        table.where,
        f"{table.own.use} needs a model",
        f'add model = "..." to {table.where}, or the tables [convert] and [warmup]',
    )
    return {}


def checkpoints_input(
    table: StageTable, needs: frozenset[Need], binder: Binder, there: Collection[str]
) -> dict[str, str]:
    """Return the node whose checkpoints a component reads."""
    if Need.CHECKPOINTS not in needs:
        return {}
    if "warmup" in there:
        _check_kept(table, needs, binder)
        return {CHECKPOINTS: "warmup"}
    what = f"{table.own.use} needs the checkpoints of a warm-up"
    binder.problem(table.where, what, "add a table [warmup] with a trainer")
    return {}


def _check_kept(table: StageTable, needs: frozenset[Need], binder: Binder) -> None:
    """Note a mistake where the warm-up will not leave the checkpoints that a component reads."""
    warmup = binder.recipe.tables["warmup"]
    bound = binder.bind(warmup)
    keeps = bound[0].component.keeps if bound else None
    if bound is None or keeps is None:
        return
    lacking = needs & {Need.CHECKPOINTS, Need.MOMENTS} - keeps(bound[1])
    if Need.CHECKPOINTS in lacking:
        what = f"{table.own.use} needs checkpoints of the warm-up, and {warmup.own.use} keeps none"
        binder.problem(table.where, what, "set checkpoint_every in [warmup]")
    elif lacking:
        what = f"{table.own.use} needs Adam's moments, which {warmup.own.use} does not keep"
        binder.problem(table.where, what, 'warm up with use = "llama-lora"')


def vector_inputs(
    table: StageTable, needs: frozenset[Need], recipe: Recipe, binder: Binder
) -> Mapping[str, str]:
    """Return the nodes of targets and vectors that a component reads, by role."""
    roles = []
    for need, stage, wanted in (
        (Need.TARGETS, TARGETS, "targets: examples of what the model should learn"),
        (Need.FEATURES, EMBED, "vectors"),
    ):
        if need not in needs:
            continue
        roles.append(stage)
        if stage not in recipe.tables:
            what = f"{table.own.use} needs {wanted}"
            binder.problem(table.where, what, f"add a table [{stage}]")
    if {Need.TARGETS, Need.FEATURES} <= needs:
        roles.append(EMBED_TARGETS)
    return {role: role for role in roles}

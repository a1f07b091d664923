"""``--fresh``: a stage and everything that depends on it are executed again."""

from collections.abc import Iterable, Iterator

from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.recipe.recipe import STAGES


def check_fresh(plan: Plan, stage: str | None) -> None:
    """Raise if the plan has no such stage."""
    stages = {node.stage for node in plan.nodes.values()}
    if stage is not None and stage not in stages:
        there = ", ".join(name for name in STAGES if name in stages)
        why = plan.not_needed.get(stage, "this run has no such stage")
        raise RecipeError(f"--fresh {stage}: {why}", hint=f"the stages of this run: {there}")


def forget(plan: Plan, stage: str | None) -> None:
    """Remove the artifacts of a stage, if one is named, and of everything that reads them.

    Raises:
        StageError: another run uses one of them.
    """
    if stage is None:
        return
    gone: dict[str, Node] = {}
    for node in plan.nodes.values():
        if node.stage == stage or gone.keys() & set(node.inputs.values()):
            gone[node.key] = node
    found = list(names(gone.values()))
    with plan.store.unused(found):
        for name in found:
            plan.store.remove(*name)


def names(nodes: Iterable[Node]) -> Iterator[tuple[str, str]]:
    """Yield what the store calls the artifacts of nodes, each once."""
    yield from dict.fromkeys((node.stage, node.digest) for node in nodes if node.digest)

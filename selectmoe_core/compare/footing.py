"""Whether all arms stand on the same footing: template, model, training, questions, pool."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selectmoe_core.compare.arms import BASE, Arm
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.node import Node, Plan

Planned = tuple[Arm, Sequence[Plan]]
"""An arm and its plan for each seed."""


def check_footing(planned: Sequence[Planned]) -> tuple[str, ...]:
    """Return where arms differ in more than what they choose, to be said above the result.

    Raises:
        RecipeError: they cannot be compared at all: another template, another model to train,
            other questions.
    """
    first = planned[0]
    for arm, plans in planned:
        _same(first, (arm, plans), "the chat format", _chat(first[1][0]), _chat(plans[0]))
        options = [_options(_evaluation(which)) for which in (first, (arm, plans))]
        _same(first, (arm, plans), "[evaluate]", *options)
    notes: list[str] = []
    for point in dict.fromkeys(arm.point for arm, _ in planned):
        here = [(arm, plans) for arm, plans in planned if arm.point == point]
        notes += _notes(here)
    return tuple(dict.fromkeys(notes))


def _notes(planned: Sequence[Planned]) -> Iterator[str]:
    """Yield what differs among the arms of one point of a grid."""
    trained = [(arm, plans) for arm, plans in planned if arm.role != BASE]
    first, first_plans = trained[0]
    train = first_plans[0].nodes["train"]
    for arm, plans in planned:
        base = _evaluation((arm, plans)).model
        if arm.role == BASE and base != _evaluation((first, first_plans)).model:
            yield (
                f"base is the untouched {base}, and the trained arms are evaluated on "
                f"{_evaluation((first, first_plans)).model}"
            )
    for arm, plans in trained[1:]:
        own = plans[0].nodes["train"]
        models = ({"model": str(train.model)}, {"model": str(own.model)})
        _same((first, first_plans), (arm, plans), "the model to train", *models)
        if said := _differences(_options(train), _options(own)):
            yield f"{arm.label} is trained with other options than {first.label}: {said}"
        if plans[0].nodes["pool"].digest != first_plans[0].nodes["pool"].digest:
            yield f"{arm.label} chooses from another pool than {first.label}"


def _same(
    first: Planned, other: Planned, what: str, here: Mapping[str, Any], there: Mapping[str, Any]
) -> None:
    if said := _differences(here, there):
        raise RecipeError(
            f"{other[0].label} and {first[0].label} cannot be compared, since {what} differs: "
            f"{said}",
            hint="give all arms the same; only what chooses the data may differ",
        )


def _evaluation(planned: Planned) -> Node:
    arm, plans = planned
    return plans[0].nodes["evaluate@base" if arm.role == BASE else "evaluate"]


def _chat(plan: Plan) -> dict[str, Any]:
    return plan.recipe.chat.model_dump(mode="json")


def _options(node: Node) -> dict[str, Any]:
    """Return the options of a stage: its component's and its own but seed and model."""
    own = node.own.model_dump(mode="json", exclude={"use", "seed", "model", "revision"})
    return {"use": node.entry.component.name, **own, **node.config.model_dump(mode="json")}


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the options that differ, as ``epochs 3 against 2``."""
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    return ", ".join(f"{name} {other.get(name)} against {first.get(name)}" for name in names)

"""Which nodes the filters of a recipe need: one for each, and one for the questions they read."""

from collections.abc import Iterator
from dataclasses import replace

from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.node import Step
from selectmoe_core.plan.vectors import vector_inputs
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.recipe.recipe import Recipe, StageOptions, StageTable

QUESTIONS = "questions"


def reads_vectors(table: StageTable, binder: Binder) -> bool:
    """Return whether a filter reads vectors, which are made after warm-up."""
    return Need.FEATURES in binder.needs(table, Kind.FILTER)


def filter_steps(recipe: Recipe, binder: Binder) -> Iterator[Step]:
    """Yield the nodes of a recipe's filters, each behind what it reads."""
    asked = False
    for name, table in recipe.filters.items():
        needs = binder.needs(table, Kind.FILTER)
        inputs = {"pool": "pool", **vector_inputs(table, needs, recipe, binder)}
        if Need.QUESTIONS in needs:
            if not asked:
                asked = True
                yield from _questions(recipe, binder, table)
            inputs[QUESTIONS] = QUESTIONS
        model = binder.target_model(table) if Need.MODEL in needs else None
        yield Step(f"filter:{name}", table, inputs, model)


def _questions(recipe: Recipe, binder: Binder, wanted_by: StageTable) -> Iterator[Step]:
    """Yield the node that writes what the evaluation asks."""
    table = recipe.tables.get("evaluate")
    if table is None:
        what = f"{wanted_by.own.use} needs the questions of an evaluation"
        hint = f"add a table [evaluate], or remove {wanted_by.where}"
        binder.problem(wanted_by.where, what, hint)
        return
    bound = binder.bind(table)
    if bound is None:
        return
    entry, config = bound
    if entry.component.questions is None:
        what = f"{wanted_by.own.use} needs questions, and {entry.component.name} does not give them"
        binder.problem(wanted_by.where, what, f"remove {wanted_by.where}, or use lm-eval")
        return
    # The model and the other keys of [evaluate] do not change what is asked.
    plain = replace(table, stage=QUESTIONS, own=StageOptions(use=table.own.use))
    yield Step(QUESTIONS, plain, {}, config=entry.component.questions(config))

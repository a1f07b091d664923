"""What a recipe gives in place of earlier stages: data to train on, an adapter to evaluate."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selectmoe_core.config import examine, user_path
from selectmoe_core.errors import ModelError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plan.binding import Binder, resolve_paths
from selectmoe_core.plan.node import ADAPTER, BASE, SELECTED, TUNED
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import (
    STAGES,
    EvaluateOptions,
    PoolOptions,
    Recipe,
    StageTable,
    TrainOptions,
)

SELECTION = "selected_data.jsonl"
"""The rows in the folder of a finished selection."""
ANY = "jsonl"
"""The reader of files whose ending no reader declares."""


def first_stage(recipe: Recipe, last: int) -> tuple[int, str]:
    """Return the first stage that may be made, as an index, and what is given in place of others.

    Args:
        recipe: the recipe.
        last: the index of the last wanted stage.
    """
    for stage, key in (("evaluate", "adapter"), ("train", "data")):
        table = recipe.tables.get(stage)
        if table is not None and STAGES.index(stage) <= last and _has(table, key):
            return STAGES.index(stage), f"[{stage}] {key} is given"
    return 0, ""


def arm_of_training(table: StageTable) -> str:
    """Return the arm that a training belongs to: only what selects is called ``selected``."""
    return TUNED if _has(table, "data") else SELECTED


def check_unmade(table: StageTable, binder: Binder) -> None:
    """Check a table whose stage is not made: what is wrong in it would stop a later run."""
    binder.check(table)
    if table.stage == "train" and arm_of_training(table) == TUNED:
        binder.check(data_table(table, binder))


def data_table(table: StageTable, binder: Binder) -> StageTable:
    """Return the table of the reader that reads what ``[train] data`` names."""
    assert isinstance(table.own, TrainOptions)
    given = table.own.data
    folder = table.origins.get("data", Path.cwd())
    where = "[train.data]"
    if isinstance(given, Mapping):
        options: dict[str, Any] = dict(given)
    else:
        options = {"path": _selections(given, folder)}
    options.setdefault("use", _reader(options.get("path"), folder, binder.registry))
    own_table = {key: value for key, value in options.items() if key in PoolOptions.model_fields}
    own, problems = examine(PoolOptions, own_table, where=where)
    for found in problems:
        binder.problem(found.where, found.what, found.hint)
    rest = {key: value for key, value in options.items() if key not in own_table}
    return StageTable(
        where, "pool", "", own or PoolOptions(use=ANY), rest, dict.fromkeys(options, folder)
    )


def with_given_data(recipe: Mapping[str, Any], train: StageTable | None, binder: Binder) -> None:
    """Write the reader of ``[train] data`` into a resolved recipe, with absolute paths."""
    if train is None or arm_of_training(train) != TUNED:
        return
    table = data_table(train, binder)
    entry = binder.registry.get(Kind.READER, table.own.use, where=table.where)
    paths = resolve_paths(table, entry.component.config)
    kept = {key: getattr(table.own, key) for key in table.own.model_fields_set}
    recipe["train"]["data"] = {**kept, **paths}


def adapter_table(table: StageTable, binder: Binder) -> tuple[StageTable, ModelRef | None, str]:
    """Return an evaluation's table with its adapter's place, the model to evaluate, and its arm.

    The model is that of the table, or the base that the adapter names. An evaluation of a model
    as it is belongs to the arm ``base``, and of one that is an adapter itself to ``adapter``.
    """
    own = table.own
    assert isinstance(own, EvaluateOptions)
    models, model = binder.registry.models, binder.model(table)
    if not own.adapter:
        return table, model, _arm(model, binder)
    place = Path(binder.location(table, "adapter", own.adapter))
    try:
        base = models.base_of(place) if place.is_dir() else None
    except ModelError as error:
        binder.problem(table.where, str(error), error.hint)
        return table, model, ADAPTER
    if base is None:
        what = f"adapter: {place} is no adapter: it has no adapter_config.json"
        hint = "name the folder that a trainer wrote, or that of a finished train stage"
        binder.problem(table.where, what, hint)
    settled = replace(table, own=own.model_copy(update={"adapter": str(place)}))
    return settled, model or base, ADAPTER


def untouched(table: StageTable) -> StageTable:
    """Return an evaluation's table without its adapter."""
    return replace(table, own=table.own.model_copy(update={"adapter": None}))


def _has(table: StageTable, key: str) -> bool:
    return getattr(table.own, key) is not None


def _arm(model: ModelRef | None, binder: Binder) -> str:
    try:
        place = binder.registry.models.local(model) if model else None
        return ADAPTER if place and binder.registry.models.base_of(place) else BASE
    except ModelError:  # reported with the models of all nodes
        return BASE


def _selections(given: object, folder: Path) -> Any:  # noqa: ANN401
    """Return the paths with each folder of a selection replaced by the file of its rows."""
    if isinstance(given, str):
        rows = user_path(given, folder) / SELECTION
        return str(rows) if rows.is_file() else given
    return [_selections(item, folder) for item in given] if isinstance(given, tuple) else given


def _reader(path: object, folder: Path, registry: Registry) -> str:
    """Return the reader whose files end as the first of the given ones."""
    first = path[0] if isinstance(path, list | tuple) and path else path
    place = user_path(str(first), folder)
    names = [file.name for file in sorted(place.iterdir())] if place.is_dir() else [place.name]
    return next(iter(registry.readers_of(names)), ANY)

"""Binding recipe tables to components; all mistakes are collected and reported together."""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from selectmoe_core.config import Config, examine, path_fields, real_path, user_path
from selectmoe_core.errors import ModelError, Problem, RecipeError
from selectmoe_core.models.models import BUNDLED, ModelRef
from selectmoe_core.models.references import model_folder
from selectmoe_core.models.state_files import STATE
from selectmoe_core.plan.drawing import TOP_K, top_k_options
from selectmoe_core.plugin.component import KINDS, Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.absolute_paths import absolute
from selectmoe_core.recipe.recipe import Recipe, ScoreOptions, StageTable

SAMPLED = ("pool", "targets", "warmup", "score", "train")
"""The stages that accept ``subset_ratio``."""
OF_MODEL = ("model", "revision", "trust_remote_code")
"""The keys that say which model a component works with, and how it is loaded."""
WITH_MODEL = (Kind.CONVERTER, Kind.TRAINER, Kind.EVALUATOR)
"""The kinds of component that get a model from their stage, whatever they declare."""
NONE = "none"
"""What ``use`` of a filter says to switch it off."""


class Binder:
    """Finds the component of a table and reads its options, once per table."""

    def __init__(self, recipe: Recipe, registry: Registry) -> None:
        self.recipe = recipe
        self.registry = registry
        self.problems: list[Problem] = []
        self._bound: dict[str, tuple[Entry, Config] | None] = {}

    def problem(self, where: str, what: str, hint: str = "") -> None:
        """Record a mistake."""
        found = Problem(where, what, hint)
        if found not in self.problems:
            self.problems.append(found)

    def bind(self, table: StageTable) -> tuple[Entry, Config] | None:
        """Return the component and its options, or ``None`` if they have a mistake."""
        key = _key(table)
        if key not in self._bound:
            self._bound[key] = self._bind(table)
        return self._bound[key]

    def check(self, table: StageTable) -> None:
        """Record the mistakes in a table of a stage that is not made.

        The files and packages that it needs may come later.
        """
        found = self._options(table, self.registry.find)
        if found is not None:
            self._note_misplaced(table, *found)

    def _options(
        self, table: StageTable, find: Callable[..., Entry]
    ) -> tuple[Entry, Config] | None:
        """Return the component, by ``find``, and its options, if both can be read."""
        try:
            entry = find(KINDS[table.stage], table.own.use, where=table.where)
        except RecipeError as error:
            self.problem("", str(error), error.hint)
            return None
        options = resolve_paths(table, entry.component.config)
        where = f"{table.where} {table.own.use}"
        reserved = _possible(table, entry)
        config, problems = examine(entry.component.config, options, where=where, beside=reserved)
        for found in problems:
            self.problem(found.where, found.what, found.hint)
        return None if config is None else (entry, config)

    def _bind(self, table: StageTable) -> tuple[Entry, Config] | None:
        found = self._options(table, self.registry.get)
        if found is None:
            return None
        entry, config = found
        where = f"{table.where} {table.own.use}"
        try:
            entry.check_answers(config, where=table.where)
            for missing in _missing_files(entry, config):
                self.problem(where, f"there is no {missing}", "check the path and the sources")
        except OSError as error:  # a name that is too long, a folder that may not be read
            self.problem(where, f"there is no {error.filename}: {error.strerror}", "check the path")
        self._note_misplaced(table, entry, config)
        return entry, config

    def _note_misplaced(self, table: StageTable, entry: Entry, config: Config) -> None:
        for key, why in _misplaced(table, entry, config).items():
            if key not in table.carried:
                self.problem(table.where, f"'{key}' has no effect here", why)

    def fitted(self) -> Recipe:
        """Return the recipe without the keys that a replaced component left behind for nothing.

        ``score.use=length`` over a ``[score]`` with a ``model`` leaves that model out; the plan
        lists it. Only tables that are bound are looked at.
        """
        tables = {name: self._fitted(table) for name, table in self.recipe.tables.items()}
        scores = {name: self._fitted(table) for name, table in self.recipe.scores.items()}
        filters = {name: self._fitted(table) for name, table in self.recipe.filters.items()}
        self.recipe = replace(self.recipe, tables=tables, scores=scores, filters=filters)
        return self.recipe

    def _fitted(self, table: StageTable) -> StageTable:
        bound = self._bound.get(_key(table))
        if bound is None:
            return table
        gone = [key for key in _misplaced(table, *bound) if key in table.carried]
        path = ".".join(table.path)
        dropped = [f"{path}.{key} (of {table.carried[key]})" for key in gone]
        resolved = copy.deepcopy(dict(self.recipe.resolved))
        place = _table_in(resolved, table)
        for key in gone:
            del place[key]
        self.recipe = replace(
            self.recipe, dropped=(*self.recipe.dropped, *dropped), resolved=resolved
        )
        kept = table.own.model_dump(include=table.own.model_fields_set - set(gone))
        return replace(table, own=type(table.own)(**kept))

    def needs(self, table: StageTable, kind: Kind) -> frozenset[Need]:
        """Return what the component reads, or nothing if it could not be bound."""
        bound = self.bind(table)
        if bound is None or bound[0].kind is not kind:
            return frozenset()
        return bound[0].component.needs(bound[1])

    def score_names(self, table: StageTable) -> tuple[str, ...]:
        """Return the names of the scores a scorer works on."""
        bound = self.bind(table)
        if bound is None or bound[0].component.scores is None:
            return ()
        return tuple(bound[0].component.scores(bound[1]))

    def by_rank(self, table: StageTable) -> bool:
        """Return whether a selector depends only on the order of the scores."""
        bound = self.bind(table)
        return bound is None or bound[0].component.by_rank

    def model(self, table: StageTable) -> ModelRef | None:
        """Return the model that a table names, with an absolute path."""
        own = table.own
        if own.model is None:
            return None
        location = self.location(table, "model", own.model)
        base = getattr(own, "base_model", None)
        below = self.location(table, "base_model", base) if base else None
        return ModelRef(location, own.revision, own.trust_remote_code, below)

    def location(self, table: StageTable, key: str, text: str) -> str:
        """Return a model's place as an absolute path; the folder of a finished stage holds one."""
        if text.startswith(BUNDLED):
            return text
        folder = table.origins.get(key, Path.cwd())
        here = real_path(user_path(text, folder))
        there = os.path.exists(here)  # noqa: PTH110  (no error for a name that is too long)
        return str(model_folder(here)) if there else absolute(text, folder)

    def untouched(self, model: ModelRef, table: StageTable) -> ModelRef:
        """Return the model itself, or of an adapter the base that it was trained on."""
        models = self.registry.models
        try:
            path = models.local(model)
            base = models.base_of(path) if path is not None else None
        except ModelError as error:
            self.problem(table.where, str(error), error.hint)
            return model
        return self.untouched(base, table) if base is not None else model

    def target_model(self, table: StageTable) -> ModelRef | None:
        """Return the model whose tokens a filter or selector counts: its own, or that of [train].

        Where there is neither, that is noted as a mistake.
        """
        train = self.recipe.tables.get("train")
        if table.own.model or train is None or not train.own.model:
            if not table.own.model:
                self.problem(
                    table.where,
                    f"{table.own.use} counts tokens and needs a model",
                    f'add model = "..." to {table.where}, or a table [train] with one',
                )
            return self.model(table)
        return self.model(train)

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as it runs from any folder: every path in it is absolute."""
        out = copy.deepcopy(dict(self.recipe.resolved))
        if "template" in out.get("chat", {}):
            out["chat"]["template"] = self.recipe.chat.template
        for table in self.recipe.stage_tables:
            place = _table_in(out, table)
            if model := self.model(table):
                place["model"] = model.location
            for key in {"base_model", "adapter"} & table.own.model_fields_set:
                if text := getattr(table.own, key):
                    place[key] = self.location(table, key, text)
            if table.stage == "filter" and table.own.use == NONE:
                continue
            entry = self.registry.find(KINDS[table.stage], table.own.use, where=table.where)
            place.update(resolve_paths(table, entry.component.config))
        return out

    def random_scorer(self) -> StageTable:
        """Return the table of the baseline's scorer."""
        own = ScoreOptions(use="random")
        return StageTable("[compare] random", "score", "", own, {}, {})

    def random_selector(self, table: StageTable) -> StageTable:
        """Return the table of the baseline's selector: the recipe's own, or ``top-k``."""
        if self.by_rank(table):
            return table
        options = top_k_options(self.registry, table.own.use, table.options, where=table.where)
        if options is None:
            self.problem(
                "[compare]",
                f"the baseline 'random' needs a selector that uses ranks; {table.own.use} selects "
                "by score value",
                'use top-fraction or top-k, or baselines = ["base"]',
            )
            return table
        given = table.own.model_dump(exclude_unset=True, exclude={"seed", *OF_MODEL})
        own = type(table.own)(**given | {"use": TOP_K})
        return replace(table, where="[compare] random", own=own, options=options)


def _table_in(resolved: dict[str, Any], table: StageTable) -> dict[str, Any]:
    """Return a table of a recipe as plain TOML values."""
    found = resolved
    for key in table.path:
        found = found[key]
    return found


def _key(table: StageTable) -> str:
    return f"{table.where} {table.own.use}"


def _possible(table: StageTable, entry: Entry) -> dict[str, FieldInfo]:
    """Return the stage's own keys that a component of this kind may take, for suggestions."""
    never = set() if entry.component.seeded or table.stage in SAMPLED else {"seed"}
    never |= set() if table.stage in SAMPLED else {"subset_ratio"}
    never |= set(OF_MODEL) if entry.kind in (Kind.READER, Kind.SELECTOR) else set()
    fields = type(table.own).model_fields
    return {key: field for key, field in fields.items() if key not in never}


def _misplaced(table: StageTable, entry: Entry, config: Config) -> dict[str, str]:
    """Return the stage's own keys that its component has no use for, with what to do instead."""
    component, given = entry.component, table.own.model_fields_set
    remove = f"remove it from {table.where}"
    why: dict[str, str] = {}
    if entry.kind not in WITH_MODEL and Need.MODEL not in component.needs(config):
        hint = f"{component.name} works without a model; {remove}"
        why |= dict.fromkeys(OF_MODEL, hint)
    elif "model" not in given:
        hint = f'it goes with a model; add model = "..." to {table.where}, or {remove}'
        why |= dict.fromkeys(OF_MODEL, hint)
    if not (table.own.model or "").endswith(STATE):
        why["base_model"] = (
            f'it goes with a state file, as model = "full_rank_weights.pt"; {remove}'
        )
    if table.stage not in SAMPLED:
        where = ", ".join(f"[{stage}]" for stage in SAMPLED)
        why["subset_ratio"] = f"it can be used in {where}; {remove}"
    if not component.seeded and ("subset_ratio" in why or table.own.subset_ratio is None):
        why["seed"] = f"{component.name} draws nothing at random; {remove}"
    return {key: hint for key, hint in why.items() if key in given}


def resolve_paths(table: StageTable, config: type[Config]) -> dict[str, Any]:
    """Make path options absolute: they start from the folder of the file that wrote them."""
    options = dict(table.options)
    for name in path_fields(config):
        value = options.get(name)
        folder = table.origins.get(name, Path.cwd())
        if isinstance(value, str):
            options[name] = _located(value, folder)
        elif isinstance(value, list):
            options[name] = [_located(v, folder) if isinstance(v, str) else v for v in value]
    return options


def _located(value: str, folder: Path) -> str:
    if value.startswith(BUNDLED) or not value.strip():  # an empty path is an error, not a folder
        return value
    return str(user_path(value, folder))


def _missing_files(entry: Entry, config: Config) -> Iterator[Path]:
    if entry.component.files is not None:
        yield from (path for path in entry.component.files(config) if not os.path.exists(path))  # noqa: PTH110  (no error for a name that is too long)

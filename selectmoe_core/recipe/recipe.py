"""A recipe file: which component does each stage, and with which options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from selectmoe_core.config import (
    Config,
    ConfigT,
    examine,
    execution_only,
    suggest,
)
from selectmoe_core.errors import Problem, shown
from selectmoe_core.paths import NAME_RULE, name_fault
from selectmoe_core.recipe.absolute_paths import with_absolute_paths, with_template
from selectmoe_core.recipe.audit_options import AuditConfig
from selectmoe_core.recipe.comparison import MOST_SEED, CompareConfig, Variant, lay_variant
from selectmoe_core.recipe.head import RecipeHead
from selectmoe_core.recipe.inner_tables import WITHIN, table_path
from selectmoe_core.recipe.old_names import renamed
from selectmoe_core.recipe.overrides import (
    Merged,
    apply_overrides,
    check_values,
    load_layers,
)
from selectmoe_core.tokens.chat import ChatConfig

STAGES = (
    "pool", "targets", "filter", "convert", "warmup", "embed", "score", "select", "train",
    "evaluate",
)  # fmt: skip


class StageOptions(Config):
    """What every stage's table may contain besides the options of its component."""

    use: str = Field(min_length=1)
    """The component's name, as ``selectmoe list`` shows it."""
    model: str | None = Field(default=None, min_length=1)
    """A hub id, a folder, a GGUF file or ``bundled:NAME``; by default an earlier stage's model."""
    revision: str | None = None
    """The hub revision of ``model``, preferably a commit hash."""
    trust_remote_code: bool = False
    """Allow Python code that comes with the checkpoint to run."""
    seed: int | None = Field(default=None, ge=0, le=MOST_SEED)
    """The stage's seed; by default the recipe's."""
    subset_ratio: float | None = Field(default=None, gt=0, le=1)
    """The share of the examples that the stage uses, drawn by id and seed."""


class PoolOptions(StageOptions):
    """What ``[pool]`` and ``[targets]`` may contain besides the options of their reader."""

    on_reject: Literal["stop", "skip"] = "stop"
    """What to do with a row that cannot be used: stop, or count it and leave it out."""


class EmbedOptions(StageOptions):
    """What ``[embed]`` may contain besides the options of its embedder."""

    shard_examples: PositiveInt | None = execution_only(None)
    """Examples whose vectors are made and written together: an interrupted run loses at most these.
    By default as for scores: a thousandth of the pool, and no more than about a minute's work."""


class PairsOptions(StageOptions):
    """What ``[warmup.pairs]`` may contain besides the options of its reader."""

    on_reject: Literal["stop", "skip"] = "stop"
    """What to do with a row that is no usable pair: stop, or count it and leave it out."""
    share: float | None = Field(default=None, gt=0, le=1)
    """The share of the pairs of an epoch that are these; the others are examples of the pool with
    their corrupted copies. 1 uses no example of the pool. By default the whole sample and every
    pair are used once."""


class ScoreOptions(StageOptions):
    """What ``[score]`` may contain besides the options of its scorer."""

    base_model: str | None = Field(default=None, min_length=1)
    """The model that a state file belongs to: ``model = "full_rank_weights.pt"`` holds only the
    tensors that a warm-up trained, and this is the converted model that it started from."""
    max_skipped: float | None = Field(default=None, ge=0, le=1)
    """The share of examples that may have no score before the stage fails; by default the scorer
    decides."""
    shard_examples: PositiveInt | None = execution_only(None)
    """Examples that are scored and written together: an interrupted run loses at most these. By
    default a thousandth of the pool, at least 2,048 and at most 65,536, but no more than about a
    minute's work."""


class TrainOptions(StageOptions):
    """What ``[train]`` may contain besides the options of its trainer."""

    data: str | tuple[str, ...] | Mapping[str, Any] | None = None
    """Conversations to train on instead of a selection: a file, a folder or a list of them, such as
    the ``selected_data.jsonl`` of another run; or a table with a reader and its options. Nothing
    above ``[train]`` is made then."""


class EvaluateOptions(StageOptions):
    """What ``[evaluate]`` may contain besides the options of its evaluator."""

    adapter: str | None = Field(default=None, min_length=1)
    """A trained adapter to evaluate, with the base that it names or with ``model``: its folder, or
    that of a finished ``train`` stage. Nothing above ``[evaluate]`` is made then."""


class SelectOptions(StageOptions):
    """What ``[select]`` may contain besides the options of its selector."""

    score: str | None = None
    """Which score to select by, if the recipe has several."""


OPTIONS: Mapping[str, type[StageOptions]] = {
    "pool": PoolOptions,
    "targets": PoolOptions,
    "embed": EmbedOptions,
    "score": ScoreOptions,
    "select": SelectOptions,
    "pairs": PairsOptions,
    "train": TrainOptions,
    "evaluate": EvaluateOptions,
}
NAMED = ("score", "filter")
"""Stages of which a recipe can have several, each by a name."""
HEAD = tuple(RecipeHead.model_fields)
TABLES = (*STAGES, "chat", "compare", "audit", "trackers", "executor")
_AS_TABLE = "write [TABLE] on a line of its own and its keys below, or TABLE.KEY=VALUE"


@dataclass(frozen=True)
class StageTable:
    """One stage of a recipe, its own keys apart from those of its component.

    Attributes:
        where: how errors name it, e.g. ``[score.ifd]``.
        stage: the stage.
        name: the score's name if a recipe has several, otherwise empty.
        own: the keys that every stage has.
        options: the component's options, not yet checked.
        origins: the folder that each key's relative paths start from.
        carried: its own keys that were written for another component than the one it uses now,
            with that one's name.
    """

    where: str
    stage: str
    name: str
    own: StageOptions
    options: Mapping[str, Any]
    origins: Mapping[str, Path]
    carried: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to it in the recipe."""
        return (*table_path(self.stage), *([self.name] if self.name else []))


@dataclass(frozen=True)
class Recipe:
    """A recipe as read. Its mistakes are kept, so that they are reported with those of binding.

    Attributes:
        path: the file.
        head: format, name, seed.
        chat: the chat format of all stages.
        compare: baselines, and what ``selectmoe compare`` compares.
        tables: the stages other than ``score`` and ``filter``, and ``pairs`` of the warm-up.
        scores: the scores by name; a single ``[score]`` has the name ``""``.
        filters: the filters by name, in the order of the recipe.
        trackers: the options of each tracker that follows runs, by its name; not yet checked.
        executor: which executor runs the processes of stages, and its options; not yet checked.
        by_default: the filters that the recipe did not write; they are in ``filters`` too.
        resolved: the whole recipe after ``extends`` and overrides, as plain TOML values.
        dropped: options that were removed because a later layer changed ``use``.
        problems: mistakes found so far.
        audit: the options of ``selectmoe audit``.
    """

    path: Path
    head: RecipeHead
    chat: ChatConfig
    compare: CompareConfig
    tables: Mapping[str, StageTable]
    scores: Mapping[str, StageTable]
    resolved: Mapping[str, Any]
    dropped: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    audit: AuditConfig = field(default_factory=AuditConfig)
    filters: Mapping[str, StageTable] = field(default_factory=dict)
    trackers: Any = field(default_factory=dict)
    executor: Any = field(default_factory=dict)
    by_default: tuple[str, ...] = ()

    @property
    def stage_tables(self) -> tuple[StageTable, ...]:
        """Every table of a stage, those of scores and filters too."""
        return (*self.tables.values(), *self.filters.values(), *self.scores.values())


def read_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    shipped: Path | None = None,
    variant: Variant | None = None,
) -> Recipe:
    """Read a recipe, the recipes it extends, and overrides such as ``select.fraction=0.1``.

    Args:
        path: the file; a plain name may also be that of a shipped recipe.
        overrides: ``key=value``; the value is TOML, or text if it is not valid TOML; ``~key``
            removes a key.
        shipped: the folder of the shipped recipes.
        variant: change the recipe into that of one arm of a comparison.

    Raises:
        RecipeError: a file is missing or not TOML, or an override is malformed. Mistakes in
            the content are kept in ``Recipe.problems``.
    """
    merged = Merged()
    for table, folder in load_layers(path, shipped):
        merged.lay(table, folder)
    apply_overrides(merged, overrides)
    check_values(merged.table)
    if variant is not None:
        lay_variant(merged, variant)
    return _recipe(path, merged)


def _recipe(path: Path, layers: Merged) -> Recipe:
    merged, origins = layers.table, layers.origins
    problems = list(_unknown_tables(merged, path))
    head = _part(RecipeHead, {k: merged[k] for k in HEAD if k in merged}, path.name, problems)
    chat_table = with_template(merged.get("chat", {}), origins)
    chat = _part(ChatConfig, chat_table, "[chat]", problems)
    compare = _part(CompareConfig, merged.get("compare", {}), "[compare]", problems)
    audit = _part(AuditConfig, merged.get("audit", {}), "[audit]", problems)
    found = [
        table
        for stage in STAGES
        for table in _stage_tables(stage, merged.get(stage), layers, problems)
    ]
    return Recipe(
        path=path,
        head=head or RecipeHead(format=1, name="invalid"),
        chat=chat or ChatConfig(),
        compare=compare or CompareConfig(),
        tables={table.stage: table for table in found if table.stage not in NAMED},
        scores={table.name: table for table in found if table.stage == "score"},
        resolved=with_absolute_paths(merged, origins),
        dropped=tuple(layers.dropped),
        problems=tuple(problems),
        audit=audit or AuditConfig(),
        filters={table.name: table for table in found if table.stage == "filter"},
        trackers=merged.get("trackers", {}),
        executor=merged.get("executor", {}),
    )


def _part(
    config: type[ConfigT], table: object, where: str, problems: list[Problem]
) -> ConfigT | None:
    if not isinstance(table, Mapping):
        problems.append(Problem(where, f"must be a table, got {shown(table, 80)}", _AS_TABLE))
        return None
    parsed, found = examine(config, table, where=where)
    problems.extend(found)
    return parsed


def _unknown_tables(merged: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for key, value in merged.items():
        if key not in HEAD and key not in TABLES:
            known = list(renamed(key, value))
            for name, new in known:
                yield Problem(path.name, f"unknown key '{name}'", f"here it is {new}")
            if not known:
                kind = f"table '[{key}]'" if isinstance(value, dict) else f"key '{key}'"
                yield Problem(path.name, f"unknown {kind}", suggest(key, (*HEAD, *TABLES)))
    if not any(key in STAGES for key in merged):
        what = "the recipe names nothing to make: it has no table of a stage"
        yield Problem(path.name, what, f"add at least one of [{'], ['.join(STAGES)}]")


def _stage_tables(
    stage: str, table: object, layers: Merged, problems: list[Problem]
) -> Iterator[StageTable]:
    if table is None:
        return
    if not isinstance(table, dict):
        problems.append(
            Problem(f"[{stage}]", f"must be a table, got {shown(table, 80)}", _AS_TABLE)
        )
        return
    for inner in (name for name, outer in WITHIN.items() if outer == stage and name in table):
        yield from _stage_table(inner, "", table[inner], layers, problems)
        table = {key: value for key, value in table.items() if key != inner}
    if stage == "filter" and not all(isinstance(value, dict) for value in table.values()):
        hint = 'write [filter.NAME] and below it use = "..."; the name is yours'
        problems.append(Problem("[filter]", "each filter has a table with a name of its own", hint))
    elif stage == "filter" or (stage == "score" and "use" not in table and _only_tables(table)):
        for name, sub in table.items():
            if fault := name_fault(name, chosen=True):
                what = f"{shown(name)} cannot be the name of a {stage}: {fault}"
                problems.append(Problem(f"[{stage}]", what, NAME_RULE))
                continue
            yield from _stage_table(stage, name, sub, layers, problems)
    else:
        yield from _stage_table(stage, "", table, layers, problems)


def _only_tables(table: Mapping[str, Any]) -> bool:
    return bool(table) and all(isinstance(value, dict) for value in table.values())


def _stage_table(
    stage: str, name: str, table: object, layers: Merged, problems: list[Problem]
) -> Iterator[StageTable]:
    path = (*table_path(stage), name) if name else table_path(stage)
    where = f"[{'.'.join(path)}]"
    kind = OPTIONS.get(stage, StageOptions)
    if not isinstance(table, dict):
        problems.append(Problem(where, f"must be a table, got {shown(table, 80)}", _AS_TABLE))
        return
    own_table = {key: value for key, value in table.items() if key in kind.model_fields}
    own = _part(kind, own_table, where, problems)
    of_key = {key: layers.origins.get((*path, key), Path.cwd()) for key in table}
    carried = {key: layers.carried[*path, key] for key in table if (*path, key) in layers.carried}
    if own is not None:
        options = {key: value for key, value in table.items() if key not in kind.model_fields}
        yield StageTable(where, stage, name, own, options, of_key, carried)

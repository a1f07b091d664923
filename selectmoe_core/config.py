"""Typed options of components, and errors that name the option to change."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from selectmoe_core.errors import Problem, RecipeError, shown

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """Base of all options: frozen, no unknown keys, described by the string under each field."""

    other_names: ClassVar[Mapping[str, str]] = {}
    """Words that users may write for an option of this class, such as its name in other programs,
    and the option's name here. They are errors; the hint names the option."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, table: Any) -> Any:  # noqa: ANN401
        """Take text with commas as a list, for options that can be nothing but a list."""
        if not isinstance(table, Mapping):
            return table
        lists = {name for name, field in cls.model_fields.items() if _lists_text(field.annotation)}
        return {
            name: [item.strip() for item in value.split(",")]
            if name in lists and isinstance(value, str)
            else value
            for name, value in table.items()
        }


def execution_only(default: Any) -> Any:  # noqa: ANN401  (the type of a pydantic default)
    """Return a field whose value can change speed or memory, never the result.

    Such options are left out of an artifact's digest.
    """
    return Field(default, json_schema_extra={"execution_only": True})


def content_path(default: Any = ...) -> Any:  # noqa: ANN401  (the type of a pydantic default)
    """Return a path field that enters the digest by the content it points to, not by its name.

    Relative paths are taken from the folder of the recipe that wrote them.
    """
    return Field(default, json_schema_extra={"content_path": True})


def marked(config: type[Config], mark: str) -> frozenset[str]:
    """Return the fields of ``config`` that carry a mark such as ``execution_only``."""

    def has(field: FieldInfo) -> bool:
        extra = field.json_schema_extra
        return isinstance(extra, dict) and bool(extra.get(mark))

    return frozenset(name for name, field in config.model_fields.items() if has(field))


def path_fields(config: type[Config]) -> frozenset[str]:
    """Return the fields that hold paths: marked as content, or typed ``Path``."""
    typed = {name for name, field in config.model_fields.items() if _holds_path(field.annotation)}
    return frozenset(typed) | marked(config, "content_path")


def _lists_text(annotation: object) -> bool:
    """Return whether a type is a tuple of texts or numbers alone; a path may hold a comma."""
    if get_origin(annotation) is not tuple:
        return False
    items = [item for item in get_args(annotation) if item is not Ellipsis]
    kinds = [get_args(item)[0] if get_origin(item) is Annotated else item for item in items]
    return all(kind in (str, int, float) or get_origin(kind) is Literal for kind in kinds)


def _holds_path(annotation: object) -> bool:
    return annotation is Path or any(map(_holds_path, get_args(annotation)))


def parse(config: type[ConfigT], table: Mapping[str, object], *, where: str) -> ConfigT:
    """Turn a TOML table into options, or raise a ``RecipeError`` that names every mistake."""
    parsed, problems = examine(config, table, where=where)
    if parsed is None:
        raise RecipeError.of(problems)
    return parsed


def examine(
    config: type[ConfigT],
    table: Mapping[str, object],
    *,
    where: str,
    beside: Mapping[str, FieldInfo] | None = None,
) -> tuple[ConfigT | None, tuple[Problem, ...]]:
    """Turn a TOML table into options, or return what is wrong with it, mistake by mistake.

    Args:
        config: the options.
        table: what the recipe says.
        where: the table's name, for messages.
        beside: other keys of the same table; a misspelt key may mean one of them.
    """
    empty = tuple(_empty_paths(config, table, where))
    try:
        parsed = config.model_validate(dict(table))
    except ValidationError as error:
        known = {**(beside or {}), **config.model_fields}
        mistakes = [dict(mistake) for mistake in error.errors()]
        found = tuple(_problem(mistake, known, where, config.other_names) for mistake in mistakes)
        return None, (*empty, *found)
    return (None, empty) if empty else (parsed, ())


def _empty_paths(
    config: type[Config], table: Mapping[str, object], where: str
) -> Iterator[Problem]:
    """Yield a problem for each empty path, which would mean the working folder."""
    for name in sorted(path_fields(config)):
        value = table.get(name)
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, str) and not item.strip() for item in items):
            hint = "is a shell variable unset? For the folder itself write '.'"
            yield Problem(where, f"option '{name}' is empty", hint)


def user_path(text: str, folder: Path | None = None) -> Path:
    """Return a path that a user wrote, from ``folder`` on; an unknown home is not replaced.

    A name such as ``~data`` is then a file that is not there.
    """
    path = Path(text)
    with suppress(RuntimeError):
        path = path.expanduser()
    return path if folder is None else folder / path


def real_path(path: Path) -> Path:
    """Return an absolute path with links resolved; a path in a loop of links is not resolved."""
    return Path(os.path.realpath(path))


def suggest(word: str, known: Iterable[str], *, otherwise: str = "known") -> str:
    """Return a hint: the closest known words, or all of them if none is close."""
    names = sorted(set(known))
    close = get_close_matches(word, names)
    nearest = [name for name in close if _likeness(name, word) > _likeness(close[0], word) - 0.02]
    if nearest:
        return f"did you mean {' or '.join(map(repr, sorted(nearest)))}?"
    return f"{otherwise}: {', '.join(names) or 'none'}"


OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "r": ("lora_rank",),
    "rank": ("lora_rank",),
    "lora_r": ("lora_rank",),
    "lora": ("lora_rank",),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "lora_target": ("target_modules",),
    "lora_target_modules": ("target_modules",),
    "lr": ("learning_rate",),
    "epoch": ("epochs",),
    "bs": ("batch_size",),
    "num_epochs": ("epochs",),
    "num_train_epochs": ("epochs",),
    "steps": ("max_steps",),
    "total_batch": ("batch_size",),
    "total_batch_size": ("batch_size",),
    "global_batch_size": ("batch_size",),
    "train_batch_size": ("batch_size",),
    "per_device_batch_size": ("per_device_batch",),
    "per_device_train_batch_size": ("per_device_batch",),
    "gradient_accumulation": ("batch_size",),
    "gradient_accumulation_steps": ("batch_size",),
    "gradient_checkpointing": ("activation_checkpointing",),
    "lr_scheduler": ("scheduler",),
    "lr_scheduler_type": ("scheduler",),
    "load_in_4bit": ("quantization",),
    "few_shot": ("num_fewshot",),
    "model_args": ("model",),
    "model_name": ("model",),
    "model_path": ("model",),
    "model_name_or_path": ("model",),
    "pretrained": ("model",),
    "path": ("model",),
    "model_checkpoint_path": ("model", "score.model"),
    "peft": ("adapter", "evaluate.adapter"),
    "peft_model_id": ("adapter", "evaluate.adapter"),
    "data_path": ("data", "train.data"),
    "dataset": ("data", "path"),
    "dataset_names": ("sources",),
    "limit_samples": ("limit",),
    "output_path": ("--outputs",),
    "output_dir": ("--outputs",),
    "max_length": ("chat.max_length",),
    "max_seq_length": ("chat.max_length",),
    "cutoff_len": ("chat.max_length",),
    "peft_mode": ("warmup.peft_mode",),
    "selection_percentage": ("fraction", "select.fraction"),
    "percentage": ("fraction", "select.fraction"),
    "subset_ratio": ("warmup.subset_ratio",),
}
"""Words of other programs, and what the option is called here; the first that a table has is meant.
A name with a dot stands in another table. No option is read under these words: they make hints."""


def _other_name(word: str, table: Mapping[str, object], own: Mapping[str, str]) -> str:
    """Return what an option is called that a user wrote by another name, or an empty string."""
    word = word.replace("-", "_").lower()
    names = [own[word]] if word in own else OTHER_NAMES.get(word, ())
    elsewhere = (name for name in names if name in table or "." in name or name[:2] == "--")
    return next(elsewhere, "")


def option_hint(
    word: str, known: Mapping[str, FieldInfo], other_names: Mapping[str, str] | None = None
) -> str:
    """Return a hint for an unknown option: the one that is meant, or the closest names."""
    name = _other_name(word, known, other_names or {})
    if name.startswith("--"):
        return f"that is an option of the command line: {name}"
    if "." in name:
        return f"that option belongs to another table: {name}"
    if name:
        return f"the option is called '{name}': {plain_text(known[name])}".rstrip(": ")
    return suggest(word, known, otherwise="options")


def _likeness(name: str, word: str) -> float:
    return SequenceMatcher(None, name, word).ratio()


def plain_text(field: FieldInfo | None) -> str:
    """Return an option's docstring as one line of plain text."""
    text = (field.description or "") if field else ""
    return " ".join(text.split()).replace("``", "'")


def _known_at(
    place: tuple[int | str, ...], fields: Mapping[str, FieldInfo]
) -> Mapping[str, FieldInfo]:
    """Return the options of the nested table that contains a mistake."""
    for part in place[:-1]:
        kind = fields[str(part)].annotation if str(part) in fields else None
        fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, Config) else {}
    return fields


def _problem(
    found: dict[str, Any],
    fields: Mapping[str, FieldInfo],
    where: str,
    other_names: Mapping[str, str],
) -> Problem:
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        hint = option_hint(str(found["loc"][-1]), _known_at(found["loc"], fields), other_names)
        return Problem(where, f"unknown option '{key}'", hint)
    if found["type"] == "missing":
        field = fields.get(key)
        return Problem(where, f"option '{key}' is missing", plain_text(field))
    message = found["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    if found["type"] == "string_pattern_mismatch":  # the sentence of the option says which
        message = "it must have another form"
    if not key:  # a mistake of the whole table: its message names the options
        return Problem(where, message, f"correct the options of {where}, or the KEY=VALUE given")
    field = fields.get(str(found["loc"][0]))
    return Problem(
        where, f"option '{key}': {message}, got {shown(found['input'], 80)}", plain_text(field)
    )

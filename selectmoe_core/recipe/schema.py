"""A JSON schema of recipes, from the components that are installed."""

from typing import Any

from selectmoe_core.config import Config
from selectmoe_core.plugin.component import KINDS, Kind
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.audit_options import AuditConfig
from selectmoe_core.recipe.comparison import CompareConfig
from selectmoe_core.recipe.head import RecipeHead
from selectmoe_core.recipe.recipe import (
    OPTIONS,
    STAGES,
    StageOptions,
)
from selectmoe_core.tokens.chat import ChatConfig

_SWITCHED_OFF = {
    "title": "none",
    "type": "object",
    "properties": {"use": {"const": "none", "description": "Switch this filter off."}},
    "required": ["use"],
    "additionalProperties": False,
}


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) that completes and checks a recipe."""
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = dict(_schema(RecipeHead, "recipe", definitions)["properties"])
    properties["chat"] = _schema(ChatConfig, "chat", definitions)
    properties["compare"] = _schema(CompareConfig, "compare", definitions)
    properties["audit"] = _schema(AuditConfig, "audit", definitions)
    properties["trackers"] = _trackers(registry, definitions)
    properties["executor"] = _executor(registry, definitions)
    for stage in STAGES:
        entries = [entry for entry in registry if entry.kind is KINDS[stage]]
        properties[stage] = _stage(stage, entries, definitions)
    pairs = [entry for entry in registry if entry.component.pairs]
    for table in properties["warmup"]["anyOf"]:
        table["properties"]["pairs"] = _stage("pairs", pairs, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "selectmoe recipe",
        "type": "object",
        "properties": properties,
        # A recipe that extends another may leave out what the other contains.
        "anyOf": [{"required": ["extends"]}, _complete()],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _trackers(registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of ``[trackers.NAME]``: the options of each tracker."""
    tables = {
        entry.component.name: _schema(
            entry.component.config, f"trackers.{entry.component.name}", definitions
        )
        for entry in registry
        if entry.kind is Kind.TRACKER
    }
    described = "Trackers that show runs while they last, each with its options."
    return {
        "type": "object",
        "description": described,
        "properties": tables,
        "additionalProperties": False,
    }


def _executor(registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of ``[executor]``: the executor and its options."""
    tables = []
    for entry in registry:
        if entry.kind is Kind.EXECUTOR:
            name = entry.component.name
            options = _schema(entry.component.config, f"executor.{name}", definitions)
            use = {"const": name, "description": entry.component.summary}
            properties = {"use": use, **options.get("properties", {})}
            table = {"title": name, "type": "object", "properties": properties}
            tables.append({**table, "additionalProperties": False})
    return {"description": "Where the processes of stages run.", "anyOf": tables}


def _complete() -> dict[str, Any]:
    """Return the rule for a recipe that extends no other: every table names its component."""
    named = {"required": ["use"]}
    several = {"additionalProperties": {"type": "object", "required": ["use"]}}
    tables: dict[str, Any] = dict.fromkeys(STAGES, named)
    tables["score"] = {"anyOf": [named, several]}
    tables["filter"] = several
    return {"required": ["format", "name"], "properties": tables}


def _schema(config: type[Config], owner: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of options; definitions move to the top, named after their owner."""
    schema = config.model_json_schema(ref_template=f"#/$defs/{owner}.{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        definitions[f"{owner}.{name}"] = definition
    return schema


def _stage(stage: str, entries: list[Entry], definitions: dict[str, Any]) -> dict[str, Any]:
    components = [_component(stage, entry, definitions) for entry in entries]
    table: dict[str, Any] = {"anyOf": [*components, _extension(components)]}
    if stage == "filter":
        table["anyOf"] = [*table["anyOf"], _SWITCHED_OFF]
        return {"type": "object", "additionalProperties": table}
    if stage == "score":
        several = {"type": "object", "additionalProperties": {"anyOf": list(table["anyOf"])}}
        table["anyOf"] = [*table["anyOf"], several]
    return table


def _extension(components: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a table without ``use``: the component is chosen in another recipe."""
    options: dict[str, list[Any]] = {}
    for component in components:
        for name, option in component["properties"].items():
            options.setdefault(name, []).append(option)
    options.pop("use", None)
    properties = {
        name: {"description": schemas[0].get("description", ""), "anyOf": schemas}
        for name, schemas in options.items()
    }
    return {
        "title": "options for the component of the recipe that this one extends",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _component(stage: str, entry: Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    own = _schema(OPTIONS.get(stage, StageOptions), stage, definitions)
    options = _schema(entry.component.config, f"{stage}.{entry.component.name}", definitions)
    properties = {**options.get("properties", {}), **own["properties"]}
    properties["use"] = {
        "const": entry.component.name,
        "description": entry.component.summary,
    }
    return {
        "title": entry.component.name,
        "type": "object",
        "properties": properties,
        "required": ["use", *options.get("required", [])],
        "additionalProperties": False,
    }

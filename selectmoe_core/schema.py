"""A JSON schema of recipes, from the components that are installed."""

from typing import Any

from selectmoe_core.binding import KINDS
from selectmoe_core.chat import ChatConfig
from selectmoe_core.recipe import (
    OPTIONS,
    STAGES,
    CompareConfig,
    RecipeHead,
    StageOptions,
)
from selectmoe_core.registry import Entry, Registry


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) that completes and checks a recipe."""
    head = RecipeHead.model_json_schema()
    properties: dict[str, Any] = dict(head["properties"])
    properties["chat"] = ChatConfig.model_json_schema()
    properties["compare"] = CompareConfig.model_json_schema()
    for stage in STAGES:
        entries = [entry for entry in registry if entry.kind is KINDS[stage]]
        properties[stage] = _stage(stage, entries)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "selectmoe recipe",
        "type": "object",
        "properties": properties,
        # A recipe that extends another may leave out what that one says.
        "anyOf": [{"required": ["extends"]}, {"required": ["format", "name", "pool"]}],
        "additionalProperties": False,
    }


def _stage(stage: str, entries: list[Entry]) -> dict[str, Any]:
    table: dict[str, Any] = {"anyOf": [_component(stage, entry) for entry in entries]}
    if stage == "score":
        several = {"type": "object", "additionalProperties": {"anyOf": list(table["anyOf"])}}
        table["anyOf"] = [*table["anyOf"], several]
    return table


def _component(stage: str, entry: Entry) -> dict[str, Any]:
    own = OPTIONS.get(stage, StageOptions).model_json_schema()
    options = entry.component.config.model_json_schema()
    properties = {**options.get("properties", {}), **own["properties"]}
    properties["use"] = {
        "const": entry.component.name,
        "description": entry.component.summary,
    }
    definitions = {**own.get("$defs", {}), **options.get("$defs", {})}
    schema: dict[str, Any] = {
        "title": entry.component.name,
        "type": "object",
        "properties": properties,
        "required": ["use", *options.get("required", [])],
        "additionalProperties": False,
    }
    if definitions:
        schema["$defs"] = definitions
    return schema

"""The JSON schema of ``report.json``, derived from the classes of the report."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.resources import files
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

SCHEMA = "report.schema.json"
PLAIN: Mapping[Any, str | list[str]] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    NoneType: "null",
    float: ["number", "null"],
    np.ndarray: "array",
}
"""The JSON types of plain values; a number that is not finite is written as ``null``."""


@cache
def shipped_schema() -> dict[str, Any]:
    """Return the schema that is shipped with selectmoe."""
    text = files("selectmoe_core.report").joinpath(SCHEMA).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def derived_schema() -> dict[str, Any]:
    """Return the schema as the classes say it; a test compares it with the one that is shipped."""
    from selectmoe_core.report.document import FORMAT
    from selectmoe_core.report.summary import Summary

    definitions: dict[str, Any] = {}
    schema = _of_class(Summary, definitions)
    schema["properties"] |= {
        "format": {"const": FORMAT, "description": "The version of this file."},
        "verdicts": {
            "type": "array",
            "items": {"type": "string"},
            "description": "One sentence for each task and baseline.",
        },
    }
    schema["required"] = sorted(schema["properties"])
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "selectmoe report",
        **schema,
        "definitions": dict(sorted(definitions.items())),
    }


def _of_class(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return the schema of a dataclass, as ``document.plain`` writes it."""
    hints = get_type_hints(kind)
    shown = [field for field in fields(kind) if field.metadata.get("document", True)]
    properties = {field.name: _of_type(hints[field.name], definitions) for field in shown}
    text = (kind.__doc__ or "").strip().partition("\n")[0]
    return {
        "type": "object",
        "description": text,
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _of_type(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _of_class(kind, definitions)
        return {"$ref": f"#/definitions/{name}"}
    if origin is UnionType:
        return {"anyOf": [_of_type(one, definitions) for one in inner]}
    if origin is tuple:
        return _of_tuple(inner, definitions)
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of_type(inner[1], definitions)}
    return {"type": PLAIN.get(kind, "string")}  # a path is written as text


def _of_tuple(inner: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if inner[-1] is Ellipsis:
        return {"type": "array", "items": _of_type(inner[0], definitions)}
    items = [_of_type(one, definitions) for one in inner]
    return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}

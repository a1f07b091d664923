"""The report as JSON: everything the page shows, as plain values."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selectmoe_core.report.summary import Difference, Summary, TaskRow

FORMAT = 2
"""The version of ``report.json``; ``report.schema.json`` describes it."""


def to_document(summary: Summary) -> dict[str, Any]:
    """Return JSON values; what is not finite becomes ``null``."""
    document = plain(summary)
    document["format"] = FORMAT
    document["verdicts"] = [difference.verdict for _, difference in differences(summary)]
    return document  # type: ignore[no-any-return]


def differences(summary: Summary) -> list[tuple[TaskRow, Difference]]:
    """Return every difference with its task."""
    tasks = summary.evaluation.tasks if summary.evaluation else ()
    return [(row, difference) for row in tasks for difference in row.differences]


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return dataclasses, arrays, paths and numbers as JSON knows them."""
    if is_dataclass(value):
        shown = (field for field in fields(value) if field.metadata.get("document", True))
        return {field.name: plain(getattr(value, field.name)) for field in shown}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value

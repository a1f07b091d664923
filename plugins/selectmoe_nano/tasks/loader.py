"""Loads the questions in this file's folder."""

import json
from pathlib import Path
from typing import Any

import datasets

QUESTIONS = Path(__file__).with_name("nano.jsonl")


def load(**_: Any) -> dict[str, datasets.Dataset]:  # noqa: ANN401
    """Return the split ``test``; the metadata that the harness hands over changes nothing.

    The first question of every family comes first, then the second ones, so that a ``limit`` asks
    as much of each family.
    """
    with QUESTIONS.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows.sort(key=lambda row: int(row["id"].rpartition("-")[2]))
    return {"test": datasets.Dataset.from_list(rows)}

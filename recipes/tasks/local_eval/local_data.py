"""Multiple-choice questions from JSON lines: ``{"id", "question", "choices", "answer"}``.

``SELECTMOE_DATA`` names the folder that holds ``eval/``; without it, ``shared/data`` beside the
checkout is tried.
"""

import json
import os
from pathlib import Path

import datasets

BESIDE_CHECKOUT = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def load(file: str, **_: object) -> dict[str, datasets.Dataset]:
    """Return the questions of ``eval/<file>`` as the split ``test``."""
    path = Path(os.environ.get("SELECTMOE_DATA") or BESIDE_CHECKOUT) / "eval" / file
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: set SELECTMOE_DATA to the folder above eval/")
    with path.open(encoding="utf-8") as lines:
        return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}

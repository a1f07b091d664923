"""Labels that a user gave: a pool of labelled rows, and the label of each as a number."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selectmoe_core.audit.labelled.planning import WHERE
from selectmoe_core.data.examples import RawExample, RawPair, Reject
from selectmoe_core.data.pairs import Halves
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import DataError, shown
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.store import Facts

VALUES = "values.npy"
"""The label of each row as a number, higher is better, float64 ``[rows]``."""
WORDS = {"good": 1.0, "bad": 0.0, "chosen": 1.0, "rejected": 0.0}
MOST_SHOWN = 10
"""Different grades that are counted."""

Kind = Literal["labels", "grades", "pairs"]


def make_labelled(part: Any, job: Job, folder: Path, column: str) -> Facts:  # noqa: ANN401
    """Read labelled rows into a pool in ``folder``; return its facts.

    Rows with a chosen and a rejected answer are pairs; all others need a label.

    Args:
        part: a reader of the file.
        job: for the reader.
        folder: where the pool goes.
        column: the name of the labels' column, for messages.

    Raises:
        DataError: a row cannot be used, or has no usable label; it is named.
    """
    pairs = iter(part.pairs(job))
    first = next(pairs, None)
    if isinstance(first, RawPair):
        rows: Iterable[RawExample | Reject] = Halves(chain([first], pairs))
    else:
        rows = _with_labels(part.read(job), column)
    values: list[float] = []
    labels: list[str] = []

    def noted() -> Iterator[RawExample | Reject]:
        for row in rows:
            if isinstance(row, RawExample):
                labels.append(row.label)
                values.append(_value(row, column))
            yield row

    # Rows keep the order of the file, and duplicates stay: a label belongs to each row.
    pool = build_pool(noted(), folder, table=WHERE, keep_duplicates=True)
    np.save(folder / VALUES, np.array(values))
    kind = _kind(labels)
    if len(set(values)) < 2:
        raise DataError(
            f"all {len(values):,} rows have the label {shown(labels[0])}: there is nothing to "
            "compare",
            hint="give rows of different quality",
        )
    shown_as = {0.0: "bad", 1.0: "good"} if kind == "labels" else {}
    counts = {
        shown_as.get(value, f"{value:g}"): values.count(value)
        for value in sorted(set(values))[:MOST_SHOWN]
        if kind != "pairs"
    }
    return {"examples": len(pool), "kind": kind, "values": counts}


def _with_labels(rows: Iterable[RawExample | Reject], column: str) -> Iterator[RawExample | Reject]:
    for row in rows:
        if isinstance(row, RawExample) and not row.label.strip():
            yield Reject(
                row.source,
                row.where,
                f"it has no '{column}' (good, bad or a number), nor 'chosen' and 'rejected'; "
                "--labels NAME names another column",
            )
        else:
            yield row


def _value(row: RawExample, column: str) -> float:
    text = row.label.strip().lower()
    if text in WORDS:
        return WORDS[text]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(
            f"{row.where}: '{column}' is {shown(row.label, 40)}, neither good nor bad nor a number",
            hint="write good, bad or a number; --labels NAME names the column of the labels",
        )
    return value


def _kind(labels: list[str]) -> Kind:
    words = {label.strip().lower() for label in labels}
    if words <= {"chosen", "rejected"}:
        return "pairs"
    if words <= {"good", "bad"}:
        return "labels"
    if words & WORDS.keys():
        raise DataError(
            "some labels are words and others are numbers",
            hint="use good and bad, or numbers, for all rows",
        )
    return "grades"

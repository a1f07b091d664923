"""The columns of a file that hold questions and answers, where they have other names than usual."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from selectmoe_core import DataError
from selectmoe_readers.config import Columns
from selectmoe_readers.rows import FORMATS, detect, telling

QUESTIONS = ("prompt", "question", "instruction", "query", "input", "problem", "user", "human")
ANSWERS = (
    *("completion", "answer", "response", "output", "reply", "target", "solution", "chosen"),
    *("assistant", "gpt", "text"),
)
TURNS = ("messages", "conversations", "conversation", "turns", "dialogue", "dialog", "chat")
"""Names that data sets give these columns, the likeliest first; case does not matter."""


def columns_for(rows: Iterable[Mapping[str, Any]], given: Mapping[str, str]) -> dict[str, str]:
    """Return the options ``columns`` for rows, given those that the user named.

    Nothing is added if the rows fit a format as they are. Otherwise a column of turns, or the
    likeliest pair of a question and an answer, is found by its name and its values.

    Raises:
        DataError: no format fits; the message names the columns.
    """
    rows = list(rows)
    if not rows:
        return dict(given)
    columns = Columns.model_validate(given)
    if any(_fits(row, columns) for row in rows):
        return dict(given)
    names = {name.lower(): name for row in rows for name in row}
    for name in TURNS:
        if name in names and any(isinstance(row.get(names[name]), list) for row in rows):
            return {**given, "messages": names[name]}
    for question, answer in product(QUESTIONS, ANSWERS):
        if question in names and answer in names and question != answer:
            return {**given, "prompt": names[question], "completion": names[answer]}
    formats = "; ".join(" + ".join(telling(name, Columns())) for name in FORMATS)
    raise DataError(
        f"no format fits: the columns are {', '.join(names.values())}",
        hint=f"known are {formats}; name yours: --column prompt=COLUMN --column completion=COLUMN",
    )


def _fits(row: Mapping[str, Any], columns: Columns) -> bool:
    return detect(row, columns) is not None


def used_columns(row_format: str, columns: Columns, names: Iterable[str]) -> list[str]:
    """Return the columns that are read from rows of a format, as the file names them."""
    there = set(names)
    sources = (columns.source,) if isinstance(columns.source, str) else columns.source
    extra = {
        "alpaca": (columns.input, columns.history, columns.system),
        "messages": (columns.system,),
        "sharegpt": (columns.system,),
        "prompt_completion": (columns.system,),
    }[row_format]
    wanted = [*telling(row_format, columns), *extra, *sources, columns.id, columns.label]
    return [name for name in dict.fromkeys(wanted) if name in there]

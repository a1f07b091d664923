"""Writing a selection in the format of a trainer."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.errors import StageError
from selectmoe_core.selections.chosen import Chosen
from selectmoe_core.selections.formats import Format
from selectmoe_core.store import replacing, write_json, write_text

README = "README.md"
"""Says what the files are, and how a trainer is told of them."""
GROUP = 10_000
"""Rows of a table written at once."""
TURN = pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.int8())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float64()),
        ("messages", pa.list_(TURN)),
    ]
)


def export(chosen: Chosen, form: Format, folder: Path, *, skip_unfit: bool = False) -> int:
    """Write a selection into a folder; return how many rows were left out.

    Args:
        chosen: the selection.
        form: the format.
        folder: where to write; files that are there are replaced.
        skip_unfit: leave out the rows that the format cannot hold.

    Raises:
        StageError: there are such rows, and they are not to be left out.
    """
    unfit = Counter(reason for row in chosen.rows() if (reason := form.unfit(row)))
    if unfit and not skip_unfit:
        named = "; ".join(f"{count:,} selected rows {reason}" for reason, count in unfit.items())
        raise StageError(
            named,
            hint="export to axolotl or parquet, or leave these rows out with --skip-unfit",
        )
    folder.mkdir(parents=True, exist_ok=True)
    lines = (form.line(row) for row in chosen.rows() if not form.unfit(row))
    with replacing(folder / form.file, alone=True) as temporary:
        if form.file.endswith(".parquet"):
            _write_table(temporary, lines)
        else:
            _write_lines(temporary, lines, plain=form.file.endswith(".txt"))
    for name, content in (form.others or {}).items():
        if isinstance(content, str):
            write_text(folder / name, content)
        else:
            write_json(folder / name, content)
    write_text(folder / README, _readme(form))
    return unfit.total()


def _readme(form: Format) -> str:
    title = f"# Rows that selectmoe selected\n\n`{form.file}`: {form.about}."
    return "\n".join([f"{title} The format: {form.page}.", "", form.use]).rstrip() + "\n"


def _write_lines(path: Path, lines: Iterable[dict[str, Any]], *, plain: bool) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            text = line["id"] if plain else json.dumps(line, ensure_ascii=False)
            file.write(f"{text}\n")


def _write_table(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as file:
        while some := list(islice(lines, GROUP)):
            file.write_table(pa.Table.from_pylist(some, SCHEMA))

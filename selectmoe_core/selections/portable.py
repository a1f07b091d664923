"""A portable selection: which rows, by content and by their own ids, and how they were chosen.

It holds no text of the data, so that it is small and can be given to others, who make the rows
again from their own copy of the pool.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.examples import ID_BYTES
from selectmoe_core.errors import DataError
from selectmoe_core.selections.chosen import Chosen
from selectmoe_core.store import Artifact, replacing

FORMAT = 1
"""The version of the file; readers refuse others."""
FILE = "selection.parquet"
MADE = b"selectmoe"
"""The key of the file's metadata that says how the selection was made, as JSON."""
GROUP = 10_000
"""Rows written at once."""
SCHEMA = pa.schema(
    [
        ("id", pa.binary(ID_BYTES)),
        ("original_id", pa.string()),
        ("source", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Portable:
    """A portable selection that was read.

    Attributes:
        path: its file.
        made: how it was made.
        table: a row for each selected row; ``id`` is the hash of its content.
    """

    path: Path
    made: Mapping[str, Any]
    table: pa.Table

    @classmethod
    def open(cls, path: Path) -> "Portable":
        """Read a portable selection.

        Raises:
            DataError: it is not one, is damaged, or is of another version.
        """
        hint = "write one with: selectmoe export RUN --to selection"
        try:
            table = pq.read_table(path)
            made = json.loads((table.schema.metadata or {})[MADE])
            known = made["format"]
            table = table.select(SCHEMA.names).cast(SCHEMA)
            _check_whole(table)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            what = str(error).partition("\n")[0][:200]
            raise DataError(f"{path} is not a portable selection: {what}", hint=hint) from None
        if known != FORMAT:
            raise DataError(
                f"{path} is of version {known}, and this selectmoe reads version {FORMAT}",
                hint="use the version of selectmoe that wrote it",
            )
        if len(table.column("id").unique()) != len(table):
            raise DataError(f"{path} names a row twice", hint=hint)
        return cls(path, made, table)


def _check_whole(table: pa.Table) -> None:
    for name in SCHEMA.names:
        if name != "original_id" and (missing := table.column(name).null_count):
            raise ValueError(f"{missing:,} rows have no {name}")


def write_portable(chosen: Chosen, arm: str, folder: Path) -> Path:
    """Write the portable form of a selection into a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = SCHEMA.with_metadata({MADE: json.dumps(_made(chosen, arm), ensure_ascii=False)})
    path = folder / FILE
    with (
        replacing(path, alone=True) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):
        lines = _lines(chosen)
        while some := list(islice(lines, GROUP)):
            file.write_table(pa.Table.from_pylist(some, schema))
    return path


def _lines(chosen: Chosen) -> Iterator[dict[str, Any]]:
    for row in chosen.rows():
        columns = {name: row[name] for name in ("source", "rank", "score")}
        original = row["meta"]["original_id"]
        yield columns | {"id": bytes.fromhex(row["id"]), "original_id": original or None}


def _made(chosen: Chosen, arm: str) -> dict[str, Any]:
    record, (score, _) = chosen.record, chosen.scores()
    return {
        "format": FORMAT,
        "selectmoe": version("selectmoe"),
        "recipe": record.name,
        "arm": arm,
        "started": record.started,
        "score": _step(Artifact.load(score.folder)),
        "select": _step(chosen.artifact),
        "pool": {name: counts.examples for name, counts in chosen.pool().sources.items()},
    }


def _step(artifact: Artifact | None) -> dict[str, Any]:
    """Return what made an artifact; of paths on this machine only the last part."""
    assert artifact is not None
    options = artifact.details.get("options", {})
    model = artifact.details.get("model")
    return {
        "use": artifact.component,
        "digest": artifact.digest,
        "seed": artifact.details.get("seed"),
        "model": _shown(model) if model else None,
        "options": {name: _shown(value) for name, value in options.items()},
    }


def _shown(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value

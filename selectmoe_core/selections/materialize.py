"""Making the rows of a portable selection again, from a user's own copy of the pool."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from selectmoe_core.data.examples import RawExample, Reject, content_id
from selectmoe_core.data.pool_writer import checked
from selectmoe_core.errors import DataError, listing, shown
from selectmoe_core.selections.portable import Portable
from selectmoe_core.store import replacing

SHOWN = 10
"""Missing rows that a message names."""


@dataclass(frozen=True)
class Missing:
    """A selected row that the pool does not have.

    Attributes:
        id: the hash of its content, 32 hexadecimal digits.
        original_id: its own id in the data, possibly empty.
        source: its source.
        changed: where the pool has a row of this original id with other content.
    """

    id: str
    original_id: str
    source: str
    changed: str = ""

    def __str__(self) -> str:
        own = f" ({shown(self.original_id)})" if self.original_id else ""
        other = f"; {listing([self.changed])} has this id, but other content"
        return f"{self.id}{own} of {listing([self.source])}{other if self.changed else ''}"


@dataclass
class Materialized:
    """What became of the rows of a selection.

    Attributes:
        rows: how many are written.
        read: rows of the pool that were looked at.
        rejected: how many of these could not be used.
        missing: the selected rows that are not there, the best first.
    """

    rows: int = 0
    read: int = 0
    rejected: int = 0
    missing: Sequence[Missing] = field(default_factory=tuple)


def materialize(
    portable: Portable,
    rows: Iterable[RawExample | Reject],
    out: Path,
    *,
    allow_missing: bool = False,
    advance: Callable[[float], None] = lambda _: None,
) -> Materialized:
    """Write the selected rows in full, the best first, as the stage ``select`` does.

    Memory holds the ids of the selection, not the rows.

    Args:
        portable: the selection.
        rows: the pool, from its reader.
        out: the file to write.
        allow_missing: write the rows that are there although some are missing.
        advance: called for each row of the pool.

    Raises:
        DataError: rows are missing and that is not allowed, or all are.
    """
    found = Materialized()
    wanted = {entry["id"]: entry for entry in portable.table.to_pylist()}
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=out.parent) as lines:
        places, changed = _collected(rows, wanted, lines, found, advance)
        found.missing = tuple(_missing(wanted, places, changed))
        if found.missing and (not places or not allow_missing):
            raise _incomplete(portable, found)
        with replacing(out, alone=True) as temporary, temporary.open("w", encoding="utf-8") as file:
            for identity, entry in wanted.items():
                if identity in places:
                    lines.seek(places[identity])
                    row = json.loads(lines.readline())
                    file.write(json.dumps(_row(entry, row), ensure_ascii=False) + "\n")
                    found.rows += 1
    return found


def _collected(
    rows: Iterable[RawExample | Reject],
    wanted: dict[bytes, dict[str, Any]],
    lines: IO[str],
    found: Materialized,
    advance: Callable[[float], None],
) -> tuple[dict[bytes, int], dict[str, str]]:
    """Write the wanted rows as they come; return where each begins, and where other content is.

    The second result names, for original ids that are wanted, rows with other content.
    """
    originals = {entry["original_id"] for entry in wanted.values()} - {None}
    places: dict[bytes, int] = {}
    changed: dict[str, str] = {}
    for row in map(checked, rows):
        found.read += 1
        advance(1)
        if isinstance(row, Reject):
            found.rejected += 1
            continue
        identity = content_id(row.messages)
        if identity in wanted:
            if identity not in places:
                places[identity] = lines.tell()
                lines.write(json.dumps(_content(row)) + "\n")
        elif row.original_id in originals:
            changed.setdefault(row.original_id, row.where)
    lines.flush()
    return places, changed


def _content(row: RawExample) -> dict[str, Any]:
    turns = [
        {"role": turn.role, "content": turn.content} | ({} if turn.trained else {"weight": 0})
        for turn in row.messages
    ]
    meta = {"original_id": row.original_id, "where": row.where, "label": row.label}
    return {"messages": turns, "meta": meta}


def _row(entry: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": entry["id"].hex(),
        "source": entry["source"],
        "messages": row["messages"],
        "score": entry["score"],
        "rank": entry["rank"],
        "meta": row["meta"],
    }


def _missing(
    wanted: dict[bytes, dict[str, Any]], places: dict[bytes, int], changed: dict[str, str]
) -> Iterator[Missing]:
    for identity, entry in wanted.items():
        if identity not in places:
            original = entry["original_id"] or ""
            yield Missing(identity.hex(), original, entry["source"], changed.get(original, ""))


def _incomplete(portable: Portable, found: Materialized) -> DataError:
    total, missing = len(portable.table), found.missing
    counts: dict[str, int] = {}
    for row in missing:
        counts[row.source] = counts.get(row.source, 0) + 1
    sources = listing([f"{name} {count:,}" for name, count in sorted(counts.items())])
    named = "\n".join(f"  {row}" for row in missing[:SHOWN])
    more = f"\n  and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
    what = (
        f"{len(missing):,} of the {total:,} rows of {portable.path} are not among the "
        f"{found.read:,} rows read ({sources}):\n{named}{more}"
    )
    if found.rejected:
        what += f"\n{found.rejected:,} rows of the pool cannot be used"
    hint = "give all files of the pool that was selected from, in the version of that time"
    if len(missing) < total:
        hint += ", or write the others with --allow-missing"
    return DataError(what, hint=hint)

"""A pool of which half is damaged, what is held out from it, and scores for its rows.

``pool.jsonl`` is all that a scorer may see. ``labels.jsonl`` says which rows are damaged and how:
only the oracle and the tables read it. ``heldout.jsonl`` is clean, and no row of the pool asks what
a row of it asks.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rows import drawn_order

from selectmoe_core.data.corruption import Damage, plant_some
from selectmoe_core.data.examples import (
    Example,
    RawExample,
    Reject,
    content_id,
    conversation_problem,
)
from selectmoe_core.data.turns import messages_from
from selectmoe_core.errors import DataError
from selectmoe_core.store import write_json

POOL, LABELS, HELDOUT, ABOUT = "pool.jsonl", "labels.jsonl", "heldout.jsonl", "about.json"
AGAIN = "make the pool again: downstream.py pool --out FOLDER"
_DRAW, _HALF = 0xD0517EA3, 0x4A1F
"""Added to the seed: which rows are held out and which are damaged have nothing in common."""


@dataclass(frozen=True)
class HalfPool:
    """An open pool.

    Attributes:
        folder: where ``make_pool`` wrote.
        examples: the rows, in the order of the file.
        heldout: clean examples of the same sources that are not in it.
    """

    folder: Path
    examples: Sequence[Example]
    heldout: Sequence[Example]

    @classmethod
    def open(cls, folder: Path) -> "HalfPool":
        """Read what ``make_pool`` wrote.

        Raises:
            DataError: a file is missing, or holds another text than its ids say.
        """
        return cls(folder, _read(folder / POOL), _read(folder / HELDOUT))

    @cached_property
    def kinds(self) -> tuple[str | None, ...]:
        """The kind of each row's damage, ``None`` for a clean row."""
        found = {row["id"]: row["kind"] for row in _lines(self.folder / LABELS)}
        if found.keys() != {example.id for example in self.examples}:
            raise DataError(f"{self.folder / LABELS} labels other rows than {POOL} has", hint=AGAIN)
        return tuple(found[example.id] for example in self.examples)

    @property
    def clean(self) -> np.ndarray:
        """Which rows are clean, bool ``[rows]``."""
        return np.array([kind is None for kind in self.kinds])

    @cached_property
    def digest(self) -> str:
        """Identifies rows, labels and held-out rows."""
        of = hashlib.sha256()
        for name in (POOL, LABELS, HELDOUT):
            of.update(hashlib.sha256((self.folder / name).read_bytes()).digest())
        return of.hexdigest()[:16]

    def scores(self, path: Path) -> np.ndarray:
        """Return the scores of a file for the rows, float64 ``[rows]``; NaN is never selected.

        Args:
            path: parquet or JSON lines with ``id`` (hexadecimal, or 16 bytes) and ``score``, or the
                folder of a score artifact.

        Raises:
            DataError: a row has no score in the file, or none of them has one.
        """
        given = dict(_scores(path))
        missing = sum(example.id not in given for example in self.examples)
        if missing:
            raise DataError(
                f"{path} lacks {missing} of the pool's {len(self.examples)} ids",
                hint=f"score {self.folder / POOL} whole; ids are the pool's own",
            )
        values = [given[example.id] for example in self.examples]
        score = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        if not np.isfinite(score).any():
            raise DataError(f"{path} has no finite score", hint="score the pool again")
        return np.where(np.isfinite(score), score, np.nan)


def make_pool(
    rows: Iterable[RawExample | Reject],
    damages: Mapping[str, Damage],
    out: Path,
    *,
    heldout: int,
    seed: int,
) -> dict[str, Any]:
    """Write a pool whose rows are damaged with even odds, and what is held out from it.

    The held-out rows are drawn first, and rows that ask the same are left out of the pool; no text
    of theirs is planted as a damage either. Which rows are damaged depends on their ids and the
    seed; a kind is drawn for each, and another where it changes nothing.

    Returns:
        counts, as written into ``about.json``.
    """
    whole = _unique(rows)
    order = drawn_order(whole, seed + _DRAW)
    drawn, rest = order[:heldout], order[heldout:]
    asked = {_normal(example.prompt) for example in drawn}
    kept = [example for example in rest if _normal(example.prompt) not in asked]
    if not drawn or len(kept) < 2:
        raise DataError(
            f"{len(whole)} rows are too few to hold {heldout} out", hint="a larger pool"
        )
    half = len(kept) // 2
    shuffled = drawn_order(kept, seed + _HALF)
    rates = dict.fromkeys(damages, 1.0)
    planted: dict[str, tuple[str | None, Example]] = {
        example.id: (None, example) for example in shuffled[half:]
    }
    failed = 0
    for example in shuffled[:half]:
        found = plant_some(example, list(damages.values()), rates, kept, seed)
        if found is None or found.example.id in planted:
            failed += 1
        else:
            planted[found.example.id] = found.kind, found.example
    return _write(out, planted, drawn, seed, left_out=len(rest) - len(kept) + failed)


def _write(
    out: Path,
    planted: Mapping[str, tuple[str | None, Example]],
    heldout: Sequence[Example],
    seed: int,
    left_out: int,
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    rows = sorted(planted.items())  # by content: the order tells nothing of the labels
    _write_lines(out / POOL, (_row(example) for _, (_, example) in rows))
    _write_lines(out / LABELS, ({"id": name, "kind": kind} for name, (kind, _) in rows))
    _write_lines(out / HELDOUT, map(_row, sorted(heldout, key=lambda one: one.id)))
    kinds = Counter(kind or "clean" for kind, _ in planted.values())
    about = {
        "seed": seed,
        "rows": len(rows),
        "clean": kinds.pop("clean", 0),
        "damaged": dict(sorted(kinds.items())),
        "heldout": len(heldout),
        "left_out": left_out,
        "sources": dict(sorted(Counter(e.source for _, e in planted.values()).items())),
    }
    write_json(out / ABOUT, about)
    return about


def _unique(rows: Iterable[RawExample | Reject]) -> list[Example]:
    found: dict[str, Example] = {}
    for row in rows:
        if isinstance(row, Reject) or conversation_problem(row.messages):
            continue
        identity = content_id(row.messages).hex()
        found.setdefault(identity, Example(identity, row.source, row.messages))
    return list(found.values())


def _normal(text: str) -> str:
    """Return a text without case, punctuation and spacing."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _row(example: Example) -> dict[str, Any]:
    messages = [{"role": one.role, "content": one.content} for one in example.messages]
    return {"dataset": example.source, "id": example.id, "messages": messages}


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(path: Path) -> list[Example]:
    found = []
    for row in _lines(path):
        messages = messages_from(row["messages"])
        if content_id(messages).hex() != row["id"]:
            raise DataError(f"{path}: the row {row['id']} holds another text", hint=AGAIN)
        found.append(Example(row["id"], sys.intern(row["dataset"]), messages))
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"there is no {path}", hint=AGAIN)
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _scores(path: Path) -> Iterator[tuple[str, float | None]]:
    if path.is_dir():
        parts = sorted((path / "scores").glob("part-*.parquet"))
        if not parts:
            raise DataError(f"{path} holds no scores/part-*.parquet", hint="name a score artifact")
        for part in parts:
            yield from _scores(part)
    elif path.suffix == ".parquet":
        table = pq.read_table(path, columns=["id", "score"])
        ids = (one if isinstance(one, str) else one.hex() for one in table["id"].to_pylist())
        yield from zip(ids, table["score"].to_pylist(), strict=True)
    else:
        for row in _lines(path):
            yield row["id"], row["score"]

"""Two selections, example by example."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.selection import SELECTION
from selectmoe_core.report.findings import ComparedExample, SelectionDifference
from selectmoe_core.report.sections.examples import turns_of

ALONE = 12
"""Examples shown of those that one selection alone has, of each."""
BOTH = 8
"""Examples shown of those that both have."""


@dataclass(frozen=True)
class Side:
    """One of two selections.

    Attributes:
        name: how the report names it.
        folder: of its artifact.
        pool: what it was selected from.
        digest: of the pool.
        score: the scores of the pool's rows, where they are known.
    """

    name: str
    folder: Path
    pool: Pool
    digest: str
    score: np.ndarray | None = None

    @cached_property
    def table(self) -> pa.Table:
        """The rows, the best first."""
        return pq.read_table(self.folder / SELECTION, columns=["row", "id", "source", "score"])

    @cached_property
    def ids(self) -> list[bytes]:
        """The ids, the best first."""
        found: list[bytes] = self.table.column("id").to_pylist()
        return found

    @cached_property
    def place(self) -> dict[bytes, int]:
        """The place of each id, from 0."""
        return {one: place for place, one in enumerate(self.ids)}

    @cached_property
    def sources(self) -> list[str]:
        """The source of each row."""
        found: list[str] = self.table.column("source").to_pylist()
        return found

    def scored(self, row: int) -> float | None:
        """Return the score of a row of the pool."""
        if self.score is None or not np.isfinite(self.score[row]):
            return None
        return float(self.score[row])


def selection_difference(first: Side, second: Side) -> SelectionDifference:
    """Compare two selections by the ids of their rows."""
    common = first.place.keys() & second.place.keys()
    same_pool = first.digest == second.digest
    sizes = len(first.ids), len(second.ids)
    return SelectionDifference(
        names=(first.name, second.name),
        sizes=sizes,
        common=len(common),
        chance=sizes[0] * sizes[1] / len(first.pool) if same_pool and len(first.pool) else None,
        sources=_sources(first, second, common),
        examples=tuple(_examples(first, second, common)),
    )


def _sources(first: Side, second: Side, common: set[bytes]) -> dict[str, tuple[int, int, int]]:
    shared = [first.sources[first.place[one]] for one in common]
    lists = (first.sources, second.sources, shared)
    counts = [dict(zip(*np.unique(own, return_counts=True), strict=True)) for own in lists]
    names = sorted({*first.sources, *second.sources})
    found = {
        name: (
            int(counts[0].get(name, 0)),
            int(counts[1].get(name, 0)),
            int(counts[2].get(name, 0)),
        )
        for name in names
    }
    return dict(sorted(found.items(), key=lambda item: (-abs(item[1][0] - item[1][1]), item[0])))


def _examples(first: Side, second: Side, common: set[bytes]) -> Iterator[ComparedExample]:
    """Yield the best of each group: of the first alone, of the second alone, of both."""
    for group, side, most in (
        ("first", first, ALONE),
        ("second", second, ALONE),
        ("both", first, BOTH),
    ):
        wanted = [one for one in side.ids if (one in common) == (group == "both")][:most]
        rows = [int(side.table.column("row")[side.place[one]].as_py()) for one in wanted]
        yield from _compared(group, side, rows, wanted, (first, second))


def _compared(
    group: str, side: Side, rows: Sequence[int], ids: Sequence[bytes], sides: tuple[Side, Side]
) -> Iterator[ComparedExample]:
    for one, row, example in zip(ids, rows, side.pool.take(rows), strict=True):
        ranks = [other.place[one] + 1 if one in other.place else None for other in sides]
        scores = []
        for other in sides:
            if other.digest == side.digest:
                scores.append(other.scored(row))
            else:
                own = other.place.get(one)
                scores.append(None if own is None else other.table.column("score")[own].as_py())
        yield ComparedExample(
            group, example.id, example.source, (ranks[0], ranks[1]), (scores[0], scores[1]),
            turns_of(example),
        )  # fmt: skip

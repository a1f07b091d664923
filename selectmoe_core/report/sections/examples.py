"""The examples in full: the best, the worst, the border, chosen ones and random ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selectmoe_core.data.examples import Example
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.selection import LEFT_OUT, SELECTION
from selectmoe_core.data.shown import (
    SHOWN,
    SOURCE_ONE_IN,
    TokenDetail,
    drawn,
    ends,
    largest,
    read_tokens,
)
from selectmoe_core.plugin.component import Meaning
from selectmoe_core.report.findings import ShownExample, Turn
from selectmoe_core.report.sections.heat import meanings
from selectmoe_core.report.sections.shading import shadings
from selectmoe_core.report.wording import number, percent
from selectmoe_core.store import Artifact

BORDER = 5
"""Examples on either side of the border between chosen and not chosen."""
NEAR, NEAR_OF_SOURCE = 0.035, 0.07
"""The share of all rows, or of a source's, within which a row may stand for the border."""
TURN_CHARACTERS = 12_000
"""The most characters of one message in the report; ordinary messages are shorter."""
EXAMPLE_CHARACTERS = 24_000
"""The most characters of one example."""
MANY = 64
"""Details with more columns are not shown for single examples."""
TURNS = 60
"""The most messages of one example."""
NOTES = ("group", "cluster", "reason")
"""What a selector says about a chosen row."""


@dataclass(frozen=True)
class Choice:
    """A finished selection as the examples need it.

    Attributes:
        folder: of the artifact.
    """

    folder: Path

    @cached_property
    def rows(self) -> np.ndarray:
        """The chosen rows, the best first."""
        return np.asarray(self._table.column("row").to_numpy(), dtype=np.int64)

    @cached_property
    def _table(self) -> pa.Table:
        path = self.folder / SELECTION
        there = [name for name in NOTES if name in pq.read_schema(path).names]
        return pq.read_table(path, columns=["row", "rank", *there])

    def notes(self, rows: Sequence[int]) -> dict[int, tuple[int, str]]:
        """Return the rank, and what the selector says, of those rows that are chosen."""
        own = self._table.filter(pc.is_in(self._table["row"], pa.array(rows, pa.int64())))
        return {entry["row"]: (entry["rank"], _said(entry)) for entry in own.to_pylist()}

    def left_out(self, rows: Sequence[int]) -> dict[int, str]:
        """Return which filter left a row out, and why."""
        path = self.folder / LEFT_OUT
        if not path.is_file():
            return {}
        table = pq.read_table(path, columns=["row", "filter", "reason"])
        own = table.filter(pc.is_in(table["row"], pa.array(rows, pa.int64())))
        return {
            e["row"]: f"left out by the filter {e['filter']}: {e['reason']}"
            for e in own.to_pylist()
        }

    @cached_property
    def rejected(self) -> np.ndarray:
        """Rows that a filter left out, int64."""
        path = self.folder / LEFT_OUT
        if not path.is_file():
            return np.empty(0, dtype=np.int64)
        return np.asarray(pq.read_table(path, columns=["row"]).column(0).to_numpy(), dtype=np.int64)


def _said(entry: Mapping[str, object]) -> str:
    """Return what a selector says; an older selection may lack a column."""
    parts = [str(entry["reason"])] if entry.get("reason") else []
    parts += [f"group {entry['group']}"] if entry.get("group") else []
    parts += [f"cluster {entry['cluster']}"] if entry.get("cluster") is not None else []
    return ", ".join(parts)


@dataclass(frozen=True)
class Scored:
    """A score and its pool, with what the examples need of them."""

    artifact: Artifact
    table: ScoreTable
    pool: Pool
    score: np.ndarray
    choice: Choice | None

    @cached_property
    def sources(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """The code of each row's source, and the names."""
        return self.table.sources()

    @cached_property
    def tokens(self) -> Mapping[int, TokenDetail]:
        """The rows whose tokens the scorer gave numbers for."""
        return read_tokens(self.artifact.folder)

    @cached_property
    def shaded(self) -> np.ndarray:
        """Those rows as a mask, bool ``[rows]``."""
        found = np.zeros(len(self.score), dtype=bool)
        found[list(self.tokens)] = True
        return found


def shown_examples(scored: Scored) -> tuple[ShownExample, ...]:
    """Return the examples of the report, each once with all kinds it belongs to."""
    kinds = example_kinds(scored)
    rows = list(kinds)
    shades = shadings({row: scored.tokens[row] for row in rows if row in scored.tokens})
    details = details_of(scored, rows)
    why = _reasons(scored, rows)
    found = []
    for row, example, own in zip(rows, scored.pool.take(rows), details, strict=True):
        meta = scored.pool.meta(row)
        rank, reason = why[row]
        found.append(
            ShownExample(
                row=row,
                kinds=kinds[row],
                score=float(scored.score[row]),
                percentile=_percentile(scored, row),
                source=example.source,
                id=example.id,
                where=meta.get("where") or "",
                label=meta.get("label") or "",
                rank=rank,
                why=reason,
                turns=turns_of(example),
                details=own,
                shading=shades.get(row),
            )
        )
    return tuple(found)


def example_kinds(scored: Scored) -> dict[int, tuple[str, ...]]:
    """Return the rows to show with their kinds; the best first, then the others by kind."""
    score = scored.score
    best, worst = ends(score, scored.table.ids())
    groups = {"best": best, "worst": worst}
    if scored.choice is not None and len(scored.choice.rows):
        groups["border"] = border(scored)
        groups["chosen"] = _some_chosen(scored, scored.choice)
    groups["random"] = drawn(np.flatnonzero(np.isfinite(score)))
    found: dict[int, list[str]] = {}
    for kind, rows in groups.items():
        for row in rows:
            found.setdefault(row, []).append(kind)
    chosen = (
        set(scored.choice.rows[np.isin(scored.choice.rows, list(found))].tolist())
        if scored.choice
        else set()
    )
    for row in chosen:
        found[row] = list(dict.fromkeys([*found[row], "chosen"]))
    return {row: tuple(kinds) for row, kinds in found.items()}


def _some_chosen(scored: Scored, choice: Choice) -> list[int]:
    """Return chosen rows by chance; those with shaded tokens where there are enough of them."""
    shaded = choice.rows[scored.shaded[choice.rows]]
    return drawn(np.sort(shaded if len(shaded) >= SHOWN else choice.rows))


def border(scored: Scored) -> list[int]:
    """Return the chosen rows with the lowest scores, and the others with the highest.

    If the choice did not follow the score alone (a share of each source), one pair from each of
    the largest sources: the last that was chosen, and the first that was not. Near the border,
    rows with shaded tokens stand for others.
    """
    assert scored.choice is not None
    chosen = np.zeros(len(scored.score), dtype=bool)
    chosen[scored.choice.rows] = True
    open_to = np.isfinite(scored.score)
    open_to[scored.choice.rejected] = False
    last, first = _around(scored.score, chosen, open_to, max(BORDER, _near(open_to, NEAR)))
    if not len(first) or scored.score[first[0]] <= scored.score[last[0]]:
        below, above = (_shaded_first(scored, side, BORDER) for side in (last, first))
        return [*below[::-1], *above]
    codes, _ = scored.sources
    found: list[int] = []
    for code in largest(codes):
        own = open_to & (codes == code)
        for side in _around(scored.score, chosen & own, own, _near(own, NEAR_OF_SOURCE)):
            found += _shaded_first(scored, side, 1)
    return found


def _around(
    score: np.ndarray, chosen: np.ndarray, open_to: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen rows from the lowest score up, and the others from the highest down."""
    kept, others = np.flatnonzero(chosen & open_to), np.flatnonzero(open_to & ~chosen)
    last = kept[np.argsort(score[kept], kind="stable")[:most]]
    return last, others[np.argsort(-score[others], kind="stable")[:most]]


def _near(rows: np.ndarray, share: float) -> int:
    """Return how many rows on one side may stand for the border, of a mask of rows."""
    return max(SOURCE_ONE_IN, math.ceil(share * int(rows.sum())))


def _shaded_first(scored: Scored, side: np.ndarray, most: int) -> list[int]:
    """Return ``most`` rows of one side of the border, in their order."""
    places = np.argsort(~scored.shaded[side], kind="stable")[:most]
    return [int(row) for row in side[np.sort(places)]]


def _percentile(scored: Scored, row: int) -> float:
    """Return the share of the source's scored rows with a lower score, in percent."""
    value = scored.score[row]
    codes, _ = scored.sources
    own = scored.score[codes == codes[row]]
    own = own[np.isfinite(own)]
    return 100.0 * float((own < value).mean()) if np.isfinite(value) and len(own) else float("nan")


def _reasons(scored: Scored, rows: Sequence[int]) -> dict[int, tuple[int | None, str]]:
    """Return the rank of each row in the selection, and why it was chosen or not."""
    if scored.choice is None:
        return dict.fromkeys(rows, (None, ""))
    notes, left = scored.choice.notes(rows), scored.choice.left_out(rows)
    kept = len(scored.choice.rows)
    found: dict[int, tuple[int | None, str]] = {}
    for row in rows:
        if row in notes:
            rank, said = notes[row]
            more = f": {said}" if said else ""
            found[row] = rank, f"chosen as number {rank:,} of {kept:,}{more}"
        else:
            found[row] = None, left.get(row) or _not_chosen(scored, row)
    return found


def _not_chosen(scored: Scored, row: int) -> str:
    assert scored.choice is not None
    if not np.isfinite(scored.score[row]):
        return "not chosen: it has no score"
    codes, names = scored.sources
    chosen = scored.choice.rows
    own = scored.score[chosen[codes[chosen] == codes[row]]]
    if not len(own):
        return f"not chosen: nothing was chosen from {names[codes[row]]}"
    lowest = float(own.min())
    if scored.score[row] < lowest:
        return f"not chosen: below {number(lowest)}, the lowest chosen score of its source"
    return f"not chosen, although the lowest chosen score of its source is {number(lowest)}"


def turns_of(example: Example) -> tuple[Turn, ...]:
    """Return the messages of an example; of very long ones only the beginning."""
    left = EXAMPLE_CHARACTERS
    found = []
    for message in example.messages[:TURNS]:
        shown = message.content[: max(0, min(TURN_CHARACTERS, left))]
        left -= len(shown)
        found.append(Turn(message.role, shown, len(message.content) - len(shown)))
    rest = sum(len(message.content) for message in example.messages[TURNS:])
    return (*found, Turn("…", "", rest)) if rest else tuple(found)


def details_of(scored: Scored, rows: Sequence[int]) -> list[tuple[tuple[str, str], ...]]:
    """Return the details of a few rows as text, reading one part at a time."""
    found: list[tuple[tuple[str, str], ...]] = [()] * len(rows)
    names, meant = list(scored.table.details), meanings(scored.artifact.facts)
    start = 0
    for path in scored.table.parts if names else ():
        size = pq.read_metadata(path).num_rows
        wanted = [place for place, row in enumerate(rows) if start <= row < start + size]
        if wanted:
            own = pq.read_table(path, columns=names)
            for place in wanted:
                row = own.slice(rows[place] - start, 1).to_pylist()[0]
                found[place] = tuple(_titled(name, row[name], meant) for name in names)
        start += size
    return found


def _titled(name: str, value: object, meant: Mapping[str, Meaning]) -> tuple[str, str]:
    """Return a detail's title and value as the scorer wants them to be shown."""
    meaning = meant.get(name)
    if meaning is None:
        return name, _text(value, complement=False, share=False)
    title = f"{meaning.title}, {meaning.each} by {meaning.each}" if meaning.each else meaning.title
    return title, _text(value, complement=meaning.complement, share=meaning.share)


def _text(value: object, *, complement: bool, share: bool) -> str:
    if isinstance(value, list):
        if len(value) > MANY:
            return f"{len(value)} numbers"
        return " ".join(_text(item, complement=complement, share=share) for item in value)
    if not isinstance(value, float):
        return str(value)
    shown = 1 - value if complement else value
    return percent(shown) if share else number(shown)

"""Why a row was selected, or not: its score, its ranks, the filters, its source's share."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.errors import RecipeError
from selectmoe_core.runtime.terminal import one_line
from selectmoe_core.selections.chosen import Chosen

DIGITS = 32


@dataclass(frozen=True)
class Place:
    """Where a row stands by its score.

    Attributes:
        rank: 1 for the best.
        of: how many have a score.
    """

    rank: int
    of: int

    @property
    def percentile(self) -> float:
        """The share of the scored rows that are worse, in percent."""
        return 100 * (self.of - self.rank) / self.of


@dataclass(frozen=True)
class Explanation:
    """What decided on a row.

    Attributes:
        id: 32 hexadecimal digits.
        source: its source.
        where: where the reader found it.
        scorer: the component that scored it.
        score: its score, or ``None``.
        skipped: why it has none.
        in_pool: its place among all scored rows.
        in_source: its place among those of its source.
        filter: the filter that left it out.
        filter_reason: what that filter said.
        better: the row of its group that was kept, where it is in the selection.
        rank: its rank in the selection, or ``None`` where it was not selected.
        reason: why the selector chose it, where it says so.
        selector: the component that selected.
        kept: how many were selected, of how many.
        kept_of_source: the same of its source.
        worst: the lowest score selected from its source.
    """

    id: str
    source: str
    where: str
    scorer: str
    score: float | None
    skipped: str | None
    in_pool: Place | None
    in_source: Place | None
    filter: str | None
    filter_reason: str | None
    better: str | None
    rank: int | None
    reason: str | None
    selector: str
    kept: tuple[int, int]
    kept_of_source: tuple[int, int]
    worst: float | None

    def document(self) -> dict[str, Any]:
        """Return the explanation as JSON values."""
        return asdict(self)


def explain(chosen: Chosen, wanted: str) -> Explanation:
    """Explain what became of a row.

    Args:
        chosen: the selection.
        wanted: the row's id, as many of its first digits as are its alone, or the id that it has
            in the user's own file.

    Raises:
        RecipeError: no row or several have such an id.
    """
    pool = chosen.pool()
    node, table = chosen.scores()
    row = find_row(pool, wanted)
    score = table.score()
    codes, names = table.sources()
    source = names[codes[row]]
    own = np.flatnonzero(codes == codes[row])
    selected = chosen.table()
    out = _left_out(chosen, row)
    entry = selected.filter(pc.equal(selected["row"], row)).to_pylist()
    facts = chosen.artifact.facts
    of_source = facts["sources"][source]
    scores = selected.filter(pc.equal(selected["source"], source))["score"]
    value = float(score[row])
    return Explanation(
        id=pool.ids(row, row + 1).astype(">u8").tobytes().hex(),
        source=source,
        where=str(pool.meta(row).get("where") or ""),
        scorer=node.component,
        score=None if np.isnan(value) else value,
        skipped=_skipped(table, row) if np.isnan(value) else None,
        in_pool=_place(table, score, row, np.arange(len(score))),
        in_source=_place(table, score, row, own),
        filter=out.get("filter"),
        filter_reason=out.get("reason"),
        better=_better(chosen, out),
        rank=entry[0]["rank"] if entry else None,
        reason=entry[0].get("reason") if entry else None,
        selector=chosen.artifact.component,
        kept=(int(facts["kept"]), int(facts["of"])),
        kept_of_source=(int(of_source["kept"]), int(of_source["of"])),
        worst=pc.min(scores).as_py(),
    )


def find_row(pool: Pool, wanted: str) -> int:
    """Return the position of the row with an id, with the first digits of one, or an own id."""
    own = np.empty(0) if len(wanted) == DIGITS else _own_ids(pool, wanted)
    if len(own) == 1:
        return int(own[0])
    if len(own):
        raise RecipeError(
            f"{len(own):,} rows have the id '{wanted[:100]}' in their files",
            hint="give the first digits of one of the ids in selected_data.jsonl",
        )
    digits = wanted.strip().lower()
    if not digits or len(digits) > DIGITS or set(digits) - set("0123456789abcdef"):
        raise RecipeError(
            f"'{wanted[:100]}' is not an id",
            hint="give the id that the row has in your file, or up to 32 hexadecimal digits, as in "
            "selected_data.jsonl",
        )
    ids = pool.ids()
    low, high = (int(digits.ljust(DIGITS, fill), 16) for fill in "0f")
    mask = (1 << 64) - 1
    first, last = np.uint64(low >> 64), np.uint64(high >> 64)
    found = np.flatnonzero((ids[:, 0] >= first) & (ids[:, 0] <= last))
    second = ids[found, 1]
    if first == last:
        found = found[(second >= np.uint64(low & mask)) & (second <= np.uint64(high & mask))]
    if len(found) != 1:
        what = "no row of the pool has" if not len(found) else f"{len(found):,} rows have"
        hint = "is it from this pool?" if not len(found) else "give more of its digits"
        raise RecipeError(f"{what} an id that begins with {digits}", hint=hint)
    return int(found[0])


def _own_ids(pool: Pool, wanted: str) -> np.ndarray:
    """Return the rows that have this id in the files that they were read from."""
    found, start = [], 0
    for batch in pool.batches():
        ids = batch.column("meta").field("original_id")
        found.append(start + np.flatnonzero(pc.fill_null(pc.equal(ids, wanted), False)))
        start += len(batch)
    return np.concatenate(found) if found and wanted else np.empty(0)


def _place(table: ScoreTable, score: np.ndarray, row: int, rows: np.ndarray) -> Place | None:
    """Return a row's place among others; equal scores are ordered by id."""
    value = score[row]
    if np.isnan(value):
        return None
    own = score[rows]
    tied = rows[own == value]
    ids = [tuple(words) for words in table.ids(tied).tolist()]
    mine = ids[int(np.flatnonzero(tied == row)[0])]
    before = int((own > value).sum()) + sum(words < mine for words in ids)
    return Place(before + 1, int(np.isfinite(own).sum()))


def _skipped(table: ScoreTable, row: int) -> str | None:
    reason: str | None = table.column("skipped")[row].as_py()
    return reason


def _left_out(chosen: Chosen, row: int) -> Mapping[str, Any]:
    table = chosen.left_out()
    if table is None:
        return {}
    found: list[Mapping[str, Any]] = table.filter(pc.equal(table["row"], row)).to_pylist()
    return found[0] if found else {}


def _better(chosen: Chosen, out: Mapping[str, Any]) -> str | None:
    """Return the id of the selected row of the group that a row was left out for."""
    if out.get("group") is None:
        return None
    from selectmoe_core.stages.left_out import ROLE, marks_of

    folders = {node.digest: node.folder for node in chosen.record.nodes}
    inputs = chosen.artifact.details["inputs"]
    marks = marks_of(
        {role: folders[digest] for role, digest in inputs.items() if role.startswith(ROLE)}
    )[out["filter"]]
    members = marks.rows[marks.numbers == out["group"]]
    table = chosen.table()
    kept = table.filter(pc.is_in(table["row"], value_set=_array(members)))["id"]
    return kept[0].as_py().hex() if len(kept) else None


def _array(rows: np.ndarray) -> Any:  # noqa: ANN401
    import pyarrow as pa

    return pa.array(rows, pa.int64())


def explanation_lines(found: Explanation) -> Iterator[str]:
    """Yield an explanation as text for a terminal; a source may have line ends in its name."""
    return map(one_line, _lines(found))


def _lines(found: Explanation) -> Iterator[str]:
    yield f"{found.id} of {found.source}{f', read from {found.where}' if found.where else ''}"
    yield ""
    if found.score is None or found.in_pool is None or found.in_source is None:
        yield f"score: none, {found.scorer} skipped it: {found.skipped or 'no reason is given'}"
    else:
        yield f"score: {found.score:.6g} by {found.scorer}"
        yield f"in the pool: {_place_text(found.in_pool)}"
        yield f"in {found.source}: {_place_text(found.in_source)}"
    if found.filter:
        better = f" ({found.better})" if found.better else ""
        yield f"filter {found.filter}: {found.filter_reason}{better}"
    kept, total = found.kept
    own_kept, own_total = found.kept_of_source
    share = f"of {found.source} {own_kept:,} of {own_total:,}"
    yield f"{found.selector} kept {kept:,} of {total:,}, {share}"
    yield _verdict(found)


def _place_text(place: Place) -> str:
    return f"rank {place.rank:,} of {place.of:,}, better than {place.percentile:.1f} %"


def _verdict(found: Explanation) -> str:
    if found.rank is not None:
        return f"selected: rank {found.rank:,}{f', {found.reason}' if found.reason else ''}"
    if found.filter:
        return "not selected: a filter left it out"
    if found.score is None:
        return "not selected: it has no score"
    if found.worst is None:
        return f"not selected: nothing of {found.source} is"
    return f"not selected: the worst selected row of {found.source} has the score {found.worst:.6g}"

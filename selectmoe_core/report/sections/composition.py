"""The composition of the pool and of the selection."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selectmoe_core.data.marks import ONE_IS_BETTER
from selectmoe_core.data.pool import Pool, SourceCounts
from selectmoe_core.data.selection import LEFT_OUT, selected_rows
from selectmoe_core.report.sections.groups import add_up, largest_groups, last_if_others
from selectmoe_core.report.summary import (
    PoolSource,
    PoolSummary,
    RejectedRow,
    SelectionSummary,
    Share,
)
from selectmoe_core.store import Artifact, Facts

REJECTS_SHOWN = 20
REASONS_SHOWN = 20
REASONS_COUNTED = 10_000
LABELS_SHOWN = 40
NO_LABEL = "none"
LEFT_OUT_SHOWN = 20
"""Rows of each filter that are listed."""


def summarise_pool(pool: Pool, score_facts: Facts) -> PoolSummary:
    """Return the composition; token figures come from the facts of the score stage."""
    tokens: Mapping[str, Any] = score_facts.get("tokens") or {}
    counted: Mapping[str, Any] = tokens.get("sources", tokens)
    sources = _sources(pool.sources, counted)
    reasons: Counter[str] = Counter()
    for reject in pool.rejects():
        known = reject.reason in reasons or len(reasons) < REASONS_COUNTED
        reasons[reject.reason if known else "other reasons"] += 1
    return PoolSummary(
        examples=len(pool),
        sources=tuple(sorted(sources, key=lambda one: _order(one.name, one.examples))),
        rejected=sum(counts.rejected for counts in pool.sources.values()),
        duplicates=sum(counts.duplicates for counts in pool.sources.values()),
        reasons=tuple(reasons.most_common(REASONS_SHOWN)),
        rejects=tuple(
            RejectedRow(row.source, row.where, row.reason)
            for row in islice(pool.rejects(), REJECTS_SHOWN)
        ),
        tokenizer=tokens.get("tokenizer"),
    )


def _order(name: str, size: int) -> tuple[bool, int, str]:
    """Return the key by which groups are sorted: the largest first, the combined row last."""
    return last_if_others(name), -size, name


def _sources(
    sources: Mapping[str, SourceCounts], counted: Mapping[str, Any]
) -> Iterator[PoolSource]:
    """Yield the largest sources, and the sum of the others."""
    shown = largest_groups({name: counts.examples for name, counts in sources.items()})
    groups: dict[str, list[str]] = {}
    for name, label in shown.items():
        groups.setdefault(label, []).append(name)
    for label, names in groups.items():
        tokens: Counter[str] = Counter()
        for name in names:
            tokens.update(counted.get(name) or {})
        yield _source(label, _added(sources[name] for name in names), tokens)


def _added(counts: Iterable[SourceCounts]) -> SourceCounts:
    total: Counter[str] = Counter()
    for source in counts:
        total.update(vars(source))
    return SourceCounts(**total)


def _source(name: str, counts: SourceCounts, counted: object) -> PoolSource:
    source = PoolSource(
        name,
        counts.examples,
        counts.rejected,
        counts.duplicates,
        counts.turns / max(counts.examples, 1),
    )
    if not isinstance(counted, Mapping) or not counted.get("examples"):
        return source
    return PoolSource(
        **vars(source)
        | {
            "tokens": counted["tokens"] / counted["examples"] if "tokens" in counted else None,
            "cut": counted.get("cut"),
            "empty": counted.get("nothing_counts"),
        }
    )


def summarise_selection(
    arm: str, selected: Artifact, baseline: Artifact | None, pool: Pool | None
) -> SelectionSummary:
    """Return what was selected per source, and per label if the pool's rows have labels."""
    facts = selected.facts
    offered, kept = _counts(facts, "of"), _counts(facts, "kept")
    shown = largest_groups(offered)
    offered, kept = add_up(offered, shown), add_up(kept, shown)
    other = add_up(_counts(baseline.facts, "kept"), shown) if baseline else None
    labels: tuple[Share, ...] = ()
    if pool is not None and (found := label_counts(pool, selected_rows(selected.folder))):
        in_pool, in_selection = found
        in_baseline = label_counts(pool, selected_rows(baseline.folder)) if baseline else None
        labels = shares(in_pool, in_selection, in_baseline[1] if in_baseline else None)
    return SelectionSummary(
        arm,
        selected.component,
        int(facts["kept"]),
        int(facts["of"]),
        shares(offered, kept, other),
        labels,
        tuple(_left_out(facts.get("left_out") or {}, shown)),
        tuple(facts.get("warnings") or ()),
        tuple(_first_left_out(selected.folder, pool)) if pool is not None else (),
    )


def _first_left_out(folder: Path, pool: Pool) -> Iterator[tuple[str, str, str]]:
    """Yield place, source and reason of the first rows that each filter left out for a reason."""
    path = folder / LEFT_OUT
    if not path.is_file():
        return
    columns = pq.read_table(path, columns=["row", "source", "filter", "reason"])
    table = columns.filter(pc.not_equal(columns["reason"], ONE_IS_BETTER))
    for name in sorted(pc.unique(table["filter"]).to_pylist()):
        own = table.filter(pc.equal(table["filter"], name))
        for row in own.slice(0, LEFT_OUT_SHOWN).to_pylist():
            place = pool.meta(row["row"]).get("where") or f"row {row['row']:,}"
            yield place, row["source"], f"{name}: {row['reason']}"


def _left_out(
    counts: Mapping[str, Mapping[str, int]], shown: Mapping[str, str]
) -> Iterator[tuple[str, str, int]]:
    """Yield source, reason and number of rows, the largest first; small sources are one."""
    rows: Counter[tuple[str, str]] = Counter()
    for source, reasons in counts.items():
        for reason, count in reasons.items():
            rows[shown.get(source, source), reason] += count
    for (source, reason), count in sorted(rows.items(), key=lambda row: (-row[1], row[0])):
        yield source, reason, count


def _counts(facts: Facts, key: str) -> dict[str, int]:
    return {name: int(source[key]) for name, source in facts["sources"].items()}


def shares(
    pool: Mapping[str, int], kept: Mapping[str, int], baseline: Mapping[str, int] | None = None
) -> tuple[Share, ...]:
    """Return each group's share of the pool and of the selection, the largest group first."""
    in_pool, in_kept = sum(pool.values()) or 1, sum(kept.values()) or 1
    in_baseline = sum(baseline.values()) or 1 if baseline else 1
    return tuple(
        Share(
            name,
            pool[name],
            kept.get(name, 0),
            pool[name] / in_pool,
            kept.get(name, 0) / in_kept,
            baseline.get(name, 0) / in_baseline if baseline is not None else None,
        )
        for name in sorted(pool, key=lambda name: _order(name, pool[name]))
    )


def label_counts(pool: Pool, rows: np.ndarray) -> tuple[dict[str, int], dict[str, int]] | None:
    """Count labels in the pool and in ``rows``; ``None`` if there are none, or too many.

    Labels are notes of the reader (for example planted damage). Scorers and selectors never see
    them, so they can be used to judge a selection.
    """
    total: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    wanted, start = np.sort(rows), 0
    for batch in pool.batches():
        labels = pc.fill_null(pc.struct_field(batch.column("meta"), "label"), "")
        low, high = np.searchsorted(wanted, [start, start + batch.num_rows])
        _add(total, labels)
        _add(kept, labels.take(pa.array(wanted[low:high] - start)))
        start += batch.num_rows
        if len(total) > LABELS_SHOWN:
            return None
    if set(total) <= {""}:
        return None
    return _named(total), _named(kept)


def _named(counts: Mapping[str, int]) -> dict[str, int]:
    return {label or NO_LABEL: number for label, number in counts.items()}


def _add(counts: Counter[str], labels: pa.Array) -> None:
    for entry in pc.value_counts(labels).to_pylist():
        counts[entry["values"]] += entry["counts"]

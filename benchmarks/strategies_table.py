"""What a selection picked, and the tables of several selections from one pool."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from selectmoe_core.plan.node import Plan
from selectmoe_core.store import Artifact

ENGLISH = "en"


def picked(plan: Plan) -> dict[str, Any]:
    """Return the rows of a finished selection, their sources, lengths and languages."""
    folder = plan.folder(plan.nodes["select"])
    table = pq.read_table(folder / "selection.parquet")
    with (folder / "selected_data.jsonl").open(encoding="utf-8") as lines:
        answers = [answer_of(json.loads(line)["messages"]) for line in lines]
    artifact = Artifact.load(folder)
    assert artifact is not None
    languages = Counter(table["language"].to_pylist()) if "language" in table.column_names else {}
    return {
        "rows": set(table["row"].to_pylist()),
        "sources": dict(Counter(table["source"].to_pylist())),
        "pool": {name: counts["of"] for name, counts in artifact.facts["sources"].items()},
        "mean_length": statistics.fmean(answers),
        "median_length": statistics.median(answers),
        "languages": dict(languages),
    }


def answer_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the characters of the answers."""
    return sum(len(turn["content"]) for turn in messages if turn["role"] == "assistant")


def markdown(found: Mapping[str, Mapping[str, Any]], left: Sequence[str]) -> str:
    """Return the tables: what each selection costs and picks, and the overlap of every pair."""
    parts = [costs(found), sources(found), overlaps(found)]
    if left:
        parts.append(f"Not run: {', '.join(left)}.")
    return "\n\n".join(parts) + "\n"


def costs(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the cost of each selection, and the lengths and languages of its rows."""
    rows = []
    for name, one in found.items():
        parts = ", ".join(f"{stage} {spent:,.0f}" for stage, spent in one["seconds"].items())
        flops = "?" if one["flops"] is None else f"{one['flops']:.1e}" if one["flops"] else "0"
        languages = one["languages"]
        other = sum(count for code, count in languages.items() if code not in (ENGLISH, "unknown"))
        rows.append(
            [
                f"`{name}`",
                f"{sum(one['seconds'].values()):,.0f} s ({parts})",
                flops,
                f"{one['mean_length']:,.0f}",
                f"{one['median_length']:,.0f}",
                f"{other / len(one['rows']):.1%}" if languages else "",
            ]
        )
    head = ["selection", "choosing", "FLOPs (estimated)", "answer, mean", "median", "not English"]
    return table(head, rows)


def sources(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the share of each source in the pool and in each selection."""
    pool: Mapping[str, int] = next(iter(found.values()))["pool"]
    names = sorted(pool, key=lambda name: -pool[name])
    rows = [["the pool", *(f"{pool[name] / sum(pool.values()):.0%}" for name in names)]]
    for name, one in found.items():
        shares = [one["sources"].get(source, 0) / len(one["rows"]) for source in names]
        rows.append([f"`{name}`", *(f"{share:.0%}" for share in shares)])
    return table(["share of the source", *names], rows)


def overlaps(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Jaccard similarity of every pair: rows of both by rows of either."""
    rows = []
    for number, (name, one) in enumerate(found.items()):
        cells = [
            f"{jaccard(one['rows'], other['rows']):.2f}".removeprefix("0")
            for other in list(found.values())[:number]
        ]
        rows.append([f"`{name}`", *cells, *([""] * (len(found) - 1 - number))])
    head = ["rows of both by rows of either", *(f"`{name}`" for name in list(found)[:-1])]
    return table(head, rows[1:]) if len(rows) > 1 else "One selection alone overlaps with nothing."


def jaccard(one: set[int], other: set[int]) -> float:
    """Return the Jaccard similarity of two sets of rows."""
    return len(one & other) / max(len(one | other), 1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])

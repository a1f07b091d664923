"""``filter``: the rows that a filter objects to, found once per pool whatever the scores are."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from selectmoe_core.data.marks import Marks, write_marks
from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import StageError, listing
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Let the filter mark rows, check its marks and write them."""
    pool = context.pool()
    marks = context.part.mark(pool, context.job)
    if problem := marks.problem(len(pool)):
        raise StageError(
            f"the filter {context.component.name} returned marks that cannot be used: {problem}",
            hint="fix the filter's mark(); selectmoe_core.testing.check_filter tests it",
        )
    write_marks(context.folder, marks)
    facts = describe(marks, pool)
    if facts["left_out"] and Need.QUESTIONS in context.component.needs(context.config):
        return {**facts, "warnings": [_leaked(context.spec.key, facts)]}
    return facts


def _leaked(key: str, facts: Facts) -> str:
    """Return what a user should know about rows that hold questions of the evaluation."""
    name = key.partition("@")[0].replace(":", ".")
    return (
        f"{facts['left_out']:,} of {facts['examples']:,} rows hold questions of the evaluation and "
        f"are left out of every selection; left_out.parquet lists them ({name}.use=none keeps them)"
    )


def describe(marks: Marks, pool: Pool) -> Facts:
    """Return how many rows were marked, also by reason and source."""
    numbers, sources = marks.numbers, pool.source_names()
    names = sources.dictionary.to_pylist()
    codes = sources.indices.to_numpy()[marks.rows]
    reasons = marks.texts().value_counts().to_pylist()
    counts = np.bincount(codes, minlength=len(names)).tolist()
    of_all = sources.indices.to_numpy()
    known = {f"{n}s": counts_by_source(own, of_all, names) for n, own in marks.columns.items()}
    return {
        **known,
        "examples": len(pool),
        "left_out": int((numbers < 0).sum()),
        "alike": int((numbers >= 0).sum()),
        "groups": len(np.unique(numbers[numbers >= 0])),
        "reasons": {of["values"]: of["counts"] for of in reasons if of["values"] is not None},
        "sources": {name: count for name, count in zip(names, counts, strict=True) if count},
    }


def counts_by_source(
    values: pa.Array, codes: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return how many rows of each source have each value, the most frequent first.

    Args:
        values: Arrow text, one for each row.
        codes: the source of each row as a position in ``names``.
        names: the sources.
    """
    column = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    texts = column.dictionary.to_pylist()
    places = column.indices.to_numpy().astype(np.int64)
    width = max(len(texts), 1)
    table = np.bincount(codes * width + places, minlength=len(names) * width).reshape(-1, width)
    found: dict[str, dict[str, int]] = {}
    for name, own in zip(names, table, strict=True):
        order = np.argsort(-own, kind="stable")
        found[name] = {texts[place]: int(own[place]) for place in order.tolist() if own[place]}
    return {name: counts for name, counts in found.items() if counts}


def summary(facts: Facts) -> str:
    """Return what a filter found: a line, and one for each warning."""
    parts = [f"{reason} {count:,}" for reason, count in sorted(facts["reasons"].items())]
    if facts["groups"]:
        parts.append(f"{facts['alike']:,} rows are alike, in {facts['groups']:,} groups")
    lines = ["; ".join(parts) or "no row is marked", *facts.get("warnings", ())]
    if languages := facts.get("languages"):
        together: Counter[str] = Counter()
        for counts in languages.values():
            together.update(counts)
        named = [f"{name} {count:,}" for name, count in together.most_common()]
        lines.append(f"languages: {listing(named)}")
    return "\n  ".join(lines)

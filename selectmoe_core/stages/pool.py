"""``pool``: the rows of a reader, checked and without duplicates, in memory-mapped Arrow."""

from collections.abc import Iterator

from selectmoe_core.data.examples import RawExample, Reject, content_id
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.pool_writer import build_pool
from selectmoe_core.errors import listing
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Build the pool."""
    own = context.spec.own
    with context.job.progress.task("read", None) as advance:
        rows = context.part.read(context.job)
        if own.get("subset_ratio"):
            rows = _sampled(rows, float(own["subset_ratio"]), context.spec.seed)
        pool = build_pool(
            rows,
            context.folder,
            on_reject=own.get("on_reject", "stop"),
            advance=advance,
            table=context.spec.where,
        )
    return describe(pool)


def describe(pool: Pool) -> Facts:
    """Return the facts of a pool for the report."""
    sources = {name: vars(counts) for name, counts in pool.sources.items()}
    rejected = sum(counts.rejected for counts in pool.sources.values())
    duplicates = sum(counts.duplicates for counts in pool.sources.values())
    return {
        "examples": len(pool),
        "rejected": rejected,
        "duplicates": duplicates,
        "sources": sources,
        "reasons": [str(reason) for reason in pool.reasons],
    }


def summary(facts: Facts) -> str:
    """Return one line about the content of a pool, and below it the reasons for missing rows."""
    sources = sorted(facts["sources"].items(), key=lambda item: -item[1]["examples"])
    counts = [f"{name} {facts[name]:,}" for name in ("examples", "rejected", "duplicates")]
    some = [f"{name} {n['examples']:,}" for name, n in sources if n["examples"]]
    rejected = [f"\n  rejected: {reason}" for reason in facts["reasons"]]
    return f"{', '.join(counts)}; sources: {listing(some)}{''.join(rejected)}"


def _sampled(
    rows: Iterator[RawExample | Reject], ratio: float, seed: int
) -> Iterator[RawExample | Reject]:
    """Keep the share ``ratio`` by id and seed, row by row, so that memory stays flat."""
    import numpy as np

    from selectmoe_core.data.pool import hash_ids

    limit = int(ratio * (1 << 64))
    for row in rows:
        if isinstance(row, Reject):
            yield row
        else:
            words = np.frombuffer(content_id(row.messages), dtype=">u8").astype(np.uint64)
            if int(hash_ids(words.reshape(1, 2), seed)[0]) < limit:
                yield row

"""``pairs``: preference pairs for a warm-up, checked, in memory-mapped Arrow."""

from selectmoe_core.data.pairs import PairTable, build_pairs
from selectmoe_core.errors import listing
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts


def run(context: Context) -> Facts:
    """Read the pairs."""
    own = context.spec.own
    with context.job.progress.task("read", None) as advance:
        table = build_pairs(
            context.part.pairs(context.job),
            context.folder,
            share=own.get("share"),
            on_reject=own.get("on_reject", "stop"),
            advance=advance,
        )
    return describe(table)


def describe(table: PairTable) -> Facts:
    """Return the facts of a table of pairs for the report."""
    sources = table.pool.sources
    characters = [n.prompt_characters + n.response_characters for n in sources.values()]
    return {
        "pairs": len(table),
        "rejected": sum(counts.rejected for counts in sources.values()),
        "duplicates": table.duplicates,
        "characters": sum(characters),
        "sources": {name: counts.examples // 2 for name, counts in sources.items()},
        "reasons": [str(reason) for reason in table.pool.reasons],
        "share": table.share,
    }


def summary(facts: Facts) -> str:
    """Return one line about the pairs, and below it the reasons for missing rows."""
    counts = [f"{name} {facts[name]:,}" for name in ("pairs", "rejected", "duplicates")]
    some = [f"{name} {count:,}" for name, count in facts["sources"].items() if count]
    rejected = [f"\n  rejected: {reason}" for reason in facts["reasons"]]
    return f"{', '.join(counts)}; sources: {listing(some)}{''.join(rejected)}"

"""The languages of the pool, where a filter recognised them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from selectmoe_core.report.findings import LanguageRow, Languages
from selectmoe_core.report.sections.groups import largest_groups, last_if_others
from selectmoe_core.store import Facts

FACT = "languages"
SHOWN = 6
"""The most languages with a column of their own."""
OTHERS, UNKNOWN = "others", "unknown"
WHOLE = "whole pool"


def summarise_languages(filters: Iterable[Facts]) -> Languages | None:
    """Return examples by source and language, or ``None`` where no filter counted them.

    Args:
        filters: the facts of the filters; ``languages`` holds examples by source and code.
    """
    found: Mapping[str, Mapping[str, int]] | None = next(
        (facts[FACT] for facts in filters if facts.get(FACT)), None
    )
    if found is None:
        return None
    shown = largest_groups({source: sum(counts.values()) for source, counts in found.items()})
    total: Counter[str] = Counter()
    rows: dict[str, Counter[str]] = {}
    for source, counts in found.items():
        named = {code or UNKNOWN: number for code, number in counts.items()}
        rows.setdefault(shown[source], Counter()).update(named)
        total.update(named)
    codes = [code for code, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
    several = len(codes) > SHOWN
    columns = [*codes[: SHOWN - 1], OTHERS] if several else codes
    ordered = sorted(rows, key=lambda name: (last_if_others(name), -rows[name].total(), name))
    every = {WHOLE: total, **{name: rows[name] for name in ordered}}
    return Languages(
        languages=len(codes),
        codes=tuple(columns),
        rows=tuple(
            LanguageRow(name, own.total(), _in(own, columns)) for name, own in every.items()
        ),
    )


def _in(counts: Counter[str], columns: list[str]) -> tuple[int, ...]:
    """Return the counts of the columns, those of all other languages under ``OTHERS``."""
    named = [counts[code] for code in columns if code != OTHERS]
    rest = [counts.total() - sum(named)] if OTHERS in columns else []
    return (*named, *rest)

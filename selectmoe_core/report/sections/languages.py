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


def summarise_languages(
    filters: Iterable[Facts], selections: Mapping[str, Facts]
) -> Languages | None:
    """Return examples by source and language, or ``None`` where no filter counted them.

    Args:
        filters: the facts of the filters; ``languages`` holds examples by source and code.
        selections: the facts of selections by name, which may have the same.
    """
    found: Mapping[str, Mapping[str, int]] | None = next(
        (facts[FACT] for facts in filters if facts.get(FACT)), None
    )
    if found is None:
        return None
    shown = largest_groups({source: sum(counts.values()) for source, counts in found.items()})
    rows: dict[str, Counter[str]] = {}
    for source, counts in found.items():
        rows.setdefault(shown[source], Counter()).update(_together({source: counts}))
    total = _together(found)
    codes = [code for code, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
    several = len(codes) > SHOWN
    columns = [*codes[: SHOWN - 1], OTHERS] if several else codes
    ordered = sorted(rows, key=lambda name: (last_if_others(name), -rows[name].total(), name))
    chosen = {name: _together(facts[FACT]) for name, facts in selections.items() if FACT in facts}
    every = {WHOLE: total, **chosen, **{name: rows[name] for name in ordered}}
    return Languages(
        languages=len(codes),
        codes=tuple(columns),
        rows=tuple(
            LanguageRow(name, own.total(), _in(own, columns)) for name, own in every.items()
        ),
    )


def _together(found: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    """Return the counts of all sources by language."""
    total: Counter[str] = Counter()
    for counts in found.values():
        total.update({code or UNKNOWN: number for code, number in counts.items()})
    return total


def _in(counts: Counter[str], columns: list[str]) -> tuple[int, ...]:
    """Return the counts of the columns, those of all other languages under ``OTHERS``."""
    named = [counts[code] for code in columns if code != OTHERS]
    rest = [counts.total() - sum(named)] if OTHERS in columns else []
    return (*named, *rest)

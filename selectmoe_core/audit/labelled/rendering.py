"""An audit by labels as a table for the terminal, as Markdown and as JSON."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from selectmoe_core.audit.agreement import Agreement
from selectmoe_core.audit.labelled.findings import LabelFinding, Labelled, judge_labels
from selectmoe_core.report.document import plain
from selectmoe_core.report.markdown import escape
from selectmoe_core.report.markdown import table as markdown_table
from selectmoe_core.report.wording import NOTHING, correlation, plural

FORMAT = 1
Row = tuple[str, ...]


@dataclass(frozen=True)
class LabelAudit:
    """The outcome of an audit by labels.

    Attributes:
        name: the recipe's name.
        facts: about the labelled rows.
        rows: the labelled rows.
        scores: the findings about each score, that about length last.
    """

    name: str
    facts: dict[str, Any]
    rows: Labelled
    scores: tuple[LabelFinding, ...]


def label_document(audit: LabelAudit) -> dict[str, Any]:
    """Return the audit as JSON values."""
    scores = []
    for finding in audit.scores:
        verdict = judge_labels(finding, audit.rows)
        scores.append({**plain(finding), "level": verdict.level, "verdict": verdict.sentences})
    return {"format": FORMAT, "name": audit.name, "labelled": plain(audit.facts), "scores": scores}


def label_rows(audit: LabelAudit) -> list[Row]:
    """Return the figures, a row for each score; the first row is the head."""
    overall = "AUROC" if audit.rows.binary else "Spearman"
    out: list[Row] = [("", "pairs of a prompt", "equally long", overall, "length")]
    for finding in audit.scores:
        whole = finding.area or finding.ranks
        out.append(
            (
                finding.name,
                _cell(finding.pairs),
                _cell(finding.alike),
                _cell(whole),
                correlation(finding.answer),
            )
        )
    return out


def _cell(found: Agreement | None) -> str:
    if found is None or not found.count or not math.isfinite(found.value):
        return NOTHING
    text = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return text.replace("0.", ".")


def label_text(audit: LabelAudit, width: int = 80) -> str:
    """Return the audit for a terminal, within ``width`` columns (at least 80)."""
    table, width = label_rows(audit), max(width, 80)
    sizes = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    sizes[0] = min(sizes[0], width - sum(sizes[1:]) - 2 * len(sizes[1:]))
    lines = [*wrap(about(audit), width), ""]
    for row in table:
        cells = [f"{cell:>{size}}" for cell, size in zip(row[1:], sizes[1:], strict=True)]
        lines.append(f"{row[0][: sizes[0]]:<{sizes[0]}}  {'  '.join(cells)}".rstrip())
    lines += ["", *wrap(EXPLAINED, width), ""]
    for name, text in _verdicts(audit):
        lines += wrap(f"{name}: {text}", width, subsequent_indent="  ")
    return "\n".join(lines)


EXPLAINED = (
    "Brackets: 95 % intervals, by drawing prompts. Pairs and AUROC: .5 is guessing. Last column: "
    "rank correlation with the length of the answers."
)


def about(audit: LabelAudit) -> str:
    """Return one line about the labelled rows."""
    facts = audit.facts
    counts = ", ".join(f"{value}: {count:,}" for value, count in facts["values"].items())
    left_out = facts["excluded"]
    text = f"{plural(facts['judged'], 'labelled row')} of {plural(facts['prompts'], 'prompt')}"
    text += f", {plural(facts['pairs'], 'pair')}{f' ({counts})' if counts else ''}"
    if left_out:
        text += f"; left out: {plural(left_out, 'row')} whose prompt or text the warm-up has seen"
    return text


def _verdicts(audit: LabelAudit) -> Iterator[tuple[str, str]]:
    for finding in audit.scores:
        if finding.component != LENGTH:
            yield finding.name, " ".join(judge_labels(finding, audit.rows).sentences)


LENGTH = "(length)"
"""The name of the baseline of every score: the characters of the answers."""


def label_markdown(audit: LabelAudit) -> str:
    """Return the audit as Markdown."""
    lines = [f"# Audit of {escape(audit.name)} by labels", "", about(audit), ""]
    for name, text in _verdicts(audit):
        lines += [f"**{escape(name)}**: {escape(text)}", ""]
    lines += [*markdown_table(label_rows(audit), 1), "", EXPLAINED, ""]
    return "\n".join(lines)

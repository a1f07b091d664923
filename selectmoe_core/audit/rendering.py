"""An audit as a table for the terminal, as Markdown and as JSON."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from selectmoe_core.audit.findings import ScoreFinding
from selectmoe_core.audit.fitting import BlendFit, TooFew
from selectmoe_core.audit.fitting_text import blend_lines
from selectmoe_core.audit.measures import Auroc
from selectmoe_core.audit.verdict import judge
from selectmoe_core.report.document import plain
from selectmoe_core.report.markdown import escape
from selectmoe_core.report.markdown import table as markdown_table
from selectmoe_core.report.wording import NOTHING, correlation, percent

WIDTH = 100
"""The width of a table for the terminal."""
NAME = 24
CELL = 12
FORMAT = 1

Row = tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit.

    Attributes:
        name: the recipe's name.
        facts: what was planted: the facts of the ``audit-pool`` artifact.
        baselines: the length of the answers as a score, for the table.
        scores: the findings about each score.
        digests: the digest of each score on the recipe's own pool, by name.
        blend: the blend that was fitted, if that was asked for.
    """

    name: str
    facts: dict[str, Any]
    baselines: tuple[ScoreFinding, ...]
    scores: tuple[ScoreFinding, ...]
    digests: dict[str, str]
    blend: BlendFit | TooFew | None = None


def document(audit: Audit) -> dict[str, Any]:
    """Return the audit as JSON values."""
    scores = []
    for finding in audit.scores:
        verdict = judge(finding)
        value = plain(finding)
        value["level"], value["verdict"] = verdict.level, list(verdict.sentences)
        value["of"] = audit.digests.get(finding.name)
        value["table"] = rows((finding, *audit.baselines))
        scores.append(value)
    return {
        "format": FORMAT,
        "name": audit.name,
        "planted": plain(audit.facts),
        "scores": scores,
        "baselines": [plain(finding) for finding in audit.baselines],
        **({"blend": plain(audit.blend)} if isinstance(audit.blend, BlendFit) else {}),
    }


def rows(
    findings: Sequence[ScoreFinding], beside: Sequence[ScoreFinding] | None = None
) -> list[Row]:
    """Return the figures as rows, a column for each score; the first row is the head.

    Args:
        findings: the scores.
        beside: all scores of a table in several parts: its rows are the same in each part.
    """
    first, beside = findings[0], beside or findings
    out: list[Row] = [("AUROC, clean over", "rows", *(finding.name for finding in findings))]
    out += list(_kinds(findings, beside))
    damaged = f"{first.overall.damaged:,}"
    out.append(("all damaged", damaged, *(_area(finding.overall) for finding in findings)))
    shown = next((finding.seen for finding in beside if finding.seen), None)
    if shown:
        out.append(("shown to warm-up", f"{shown.damaged:,}", *(_area(f.seen) for f in findings)))
        out.append(("never shown", "", *(_area(f.unseen if f.seen else None) for f in findings)))
    best = first.precision
    out.append(
        (
            f"clean of best {100 * first.fraction:g} %",
            f"{best.kept:,}",
            *(
                f"{100 * f.precision.value:.0f} ± {100 * f.precision.stderr:.0f} %"
                for f in findings
            ),
        )
    )
    out.append(
        ("of all rows", "", *(f"{100 * finding.precision.base:.0f} %" for finding in findings))
    )
    out.append(
        ("Spearman, answer length", "", *(correlation(finding.answer) for finding in findings))
    )
    out.append(
        ("Spearman, conversation", "", *(correlation(finding.conversation) for finding in findings))
    )
    out.append(("no score, clean", "", *(str(finding.skipped_clean) for finding in findings)))
    out.append(("no score, damaged", "", *(str(finding.skipped_damaged) for finding in findings)))
    return out


def _kinds(findings: Sequence[ScoreFinding], beside: Sequence[ScoreFinding]) -> Iterator[Row]:
    """Yield a row for each kind; a star marks kinds that warm-up was shown."""
    names = {
        result.kind: any(_of(f, result.kind).seen for f in beside) for result in findings[0].kinds
    }
    for kind in sorted(names, key=lambda name: (not names[name], name)):
        cells = [_of(finding, kind) for finding in findings]
        yield (
            kind,
            f"{cells[0].auroc.damaged:,}",
            *(f"{_area(result.auroc)}{'*' if result.seen else ''}" for result in cells),
        )


def _of(finding: ScoreFinding, kind: str) -> Any:  # noqa: ANN401
    return next(result for result in finding.kinds if result.kind == kind)


def _area(area: Auroc | None) -> str:
    if area is None:
        return NOTHING
    error = f" ± {area.stderr:.2f}" if math.isfinite(area.stderr) else ""
    return f"{area.value:.2f}{error}".replace("0.", ".")


def text(audit: Audit, width: int = WIDTH) -> str:
    """Return the audit for a terminal, within ``width`` columns."""
    findings = (*audit.scores, *_others(audit))
    each = max(1, (max(width, 80) - NAME - 7) // (CELL + 2))
    lines: list[str] = [*_planted(audit), ""]
    for start in range(0, len(findings), each):
        lines += [*_block(rows(findings[start : start + each], findings)), ""]
    lines += [*_legend(findings, audit.baselines), ""]
    for finding in audit.scores:
        lines += [*_wrapped(finding, max(width, 80)), ""]
    if audit.blend is not None:
        lines += [*blend_lines(audit.blend), ""]
    return "\n".join(lines)


def _others(audit: Audit) -> tuple[ScoreFinding, ...]:
    """Return the baselines that are not among the scores already."""
    same = {(finding.component, finding.overall) for finding in audit.scores}
    return tuple(one for one in audit.baselines if ("length", one.overall) not in same)


def _legend(findings: Sequence[ScoreFinding], baselines: Sequence[ScoreFinding]) -> Iterator[str]:
    """Yield what the figures mean."""
    yield "AUROC: 1.00 is perfect, .50 is guessing; below it the score prefers damage."
    if any(finding in baselines for finding in findings):
        yield "(length): the length of the answers as a score; a score should beat it."
    if any(result.seen for finding in findings for result in finding.kinds):
        yield "* shown to warm-up: finding it proves little."


def _planted(audit: Audit) -> Iterator[str]:
    facts = audit.facts
    yield (
        f"{facts['examples']:,} rows of the pool: {facts['clean']:,} clean, "
        f"{facts['examples'] - facts['clean']:,} damaged"
    )
    if facts["excluded"]:
        yield f"not included: {facts['excluded']:,} rows that warm-up uses"
    for kind, reason in facts["short"].items():
        yield f"{kind}: {reason}"


def _block(found: Sequence[Row]) -> Iterator[str]:
    head, *_ = found
    sizes = [max(CELL, *(len(row[place]) for row in found)) for place in range(2, len(head))]
    for row in found:
        cells = [f"{cell:>{size}}" for cell, size in zip(row[2:], sizes, strict=True)]
        yield f"{row[0]:<{NAME}} {row[1]:>6}  {'  '.join(cells)}".rstrip()


def _wrapped(finding: ScoreFinding, width: int) -> Iterator[str]:
    from textwrap import wrap

    text = " ".join(judge(finding).sentences)
    yield from wrap(f"{finding.name}: {text}", width, subsequent_indent="  ")


def markdown(audit: Audit) -> str:
    """Return the audit as Markdown."""
    lines = [f"# Audit of {escape(audit.name)}", "", *_planted(audit), ""]
    for finding in audit.scores:
        first, *rest = judge(finding).sentences
        lines += [f"**{escape(finding.name)}**: {first} {escape(' '.join(rest))}".rstrip(), ""]
    lines += [*markdown_table(rows((*audit.scores, *audit.baselines)), 1), ""]
    if any(result.seen for finding in audit.scores for result in finding.kinds):
        lines += ["A star (*) marks kinds of damage that warm-up was shown.", ""]
    if audit.blend is not None:
        lines += ["## A fitted blend", "", "```text", *blend_lines(audit.blend), "```", ""]
    for finding in audit.scores:
        lines += [*_shifts(finding), ""]
    return "\n".join(lines)


def _shifts(finding: ScoreFinding) -> Iterator[str]:
    yield f"## Sources of the best {100 * finding.fraction:g} % by {escape(finding.name)}"
    yield ""
    yield "Only clean rows."
    yield ""
    yield from markdown_table(
        [
            ("source", "rows", "of all rows", "of the best"),
            *((s.source, f"{s.rows:,}", percent(s.share), percent(s.kept)) for s in finding.shifts),
        ]
    )

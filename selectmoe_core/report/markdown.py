"""The report as Markdown, short enough for a pull request: the headline and small tables."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from selectmoe_core.report.html import shares_differ
from selectmoe_core.report.summary import (
    EvaluationSummary,
    PoolSummary,
    ScoreSummary,
    SelectionSummary,
    Share,
    Summary,
)
from selectmoe_core.report.wording import (
    NOTHING,
    correlation,
    count,
    duration,
    measured,
    number,
    percent,
    plural,
    signed,
    times,
)

Row = Sequence[str]
ROWS = 8
"""The most rows of a table; the page has the others."""


def render_markdown(summary: Summary) -> str:
    """Return the report; texts from data are escaped, or in code blocks that they cannot close."""
    record, headline = summary.record, summary.headline
    title = " ".join([record.name, *headline.overrides])
    lines = [f"# {escape(title)}"]
    if headline.selection:
        lines += ["", f"{escape(headline.selection)}."]
    if headline.result:
        lines += ["", f"**{escape(headline.verdict_text)}**: {escape(headline.result)}."]
    for warning in headline.warnings:
        lines += ["", f"> {escape(warning)}"]
    for section in _sections(summary):
        lines += ["", *section]
    return "\n".join(lines) + "\n"


def _sections(summary: Summary) -> Iterator[Iterable[str]]:
    if summary.evaluation:
        yield _evaluation(summary.evaluation)
    if summary.pool or summary.selection:
        yield _selection(summary.pool, summary.selection)
    if summary.scores:
        yield _scores(summary.scores)
    yield _run(summary)


def table(rows: Sequence[Row], text_columns: int = 1) -> list[str]:
    """Return a Markdown table; the first row is its head, and all cells are escaped."""
    head, *body = ([escape(cell) for cell in row] for row in rows)
    rule = ["---" if place < text_columns else "---:" for place in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]


def escape(text: str) -> str:
    """Return text that Markdown and HTML show unchanged, on one line."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_{}\[\]<>#|&~])", r"\\\1", flat)


def fence(text: str) -> list[str]:
    """Return text as a code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    mark = "`" * max(3, longest + 1)
    return [f"{mark}text", text, mark]


def evaluation_rows(evaluation: EvaluationSummary) -> list[Row]:
    """Return the table of tasks and arms as text, its head first."""
    baselines = evaluation.baselines
    rows: list[Row] = [
        ("task", *evaluation.arms, *(f"vs {name}" for name in baselines), "chance", "questions")
    ]
    for task in evaluation.tasks:
        results = [task.results.get(arm) for arm in evaluation.arms]
        values = [
            measured(result.value, result.stderr) if result else NOTHING for result in results
        ]
        values = [
            f"{value} (at chance)" if result and result.at_chance else value
            for value, result in zip(values, results, strict=True)
        ]
        by_name = {d.baseline: signed(d.value, d.stderr) for d in task.differences}
        differences = [by_name.get(name, NOTHING) for name in baselines]
        rows.append((task.task, *values, *differences, number(task.chance), count(task.questions)))
    return rows


def _evaluation(evaluation: EvaluationSummary) -> Iterator[str]:
    yield from ("## Result", "")
    yield from table(evaluation_rows(evaluation))
    yield from (
        "",
        "± is one standard error over the questions; it does not cover other training seeds.",
    )


def _selection(pool: PoolSummary | None, selection: SelectionSummary | None) -> Iterator[str]:
    yield from ("## Pool and selection", "")
    if pool is not None:
        cut = sum(source.cut or 0 for source in pool.sources)
        yield (
            f"Pool: {plural(pool.examples, 'example')}, {plural(pool.duplicates, 'duplicate')} "
            f"dropped, {plural(pool.rejected, 'row')} rejected, {count(cut)} truncated."
        )
    if selection is None:
        return
    left = sum(rows for _, _, rows in selection.left_out)
    out = f"; filters left out {plural(left, 'row')}" if left else ""
    yield (
        f"{escape(selection.component)} kept {count(selection.kept)} of "
        f"{plural(selection.of, 'example')}{out}."
    )
    for head, groups in (("source", selection.sources), ("label", selection.labels)):
        if shares_differ(groups):
            yield from ("", *_shares(head, groups))
        elif len(groups) > 1:
            yield f"Every {head} has nearly the same share of both."


def _shares(head: str, groups: Sequence[Share]) -> Iterator[str]:
    """Yield the groups whose shares differ most."""
    far = sorted(groups, key=lambda group: -abs(group.kept_share - group.pool_share))[:ROWS]
    columns = (head, "pool", "selected", "share of pool", "share of selection", "factor")
    rows = [
        (
            group.name,
            count(group.pool),
            count(group.kept),
            percent(group.pool_share),
            percent(group.kept_share),
            times(group.factor),
        )
        for group in far
    ]
    yield from table([columns, *rows])
    if len(groups) > len(far):
        yield from ("", f"These differ most; {len(groups) - len(far):,} more are in the page.")


def _scores(found: Sequence[ScoreSummary]) -> Iterator[str]:
    yield from ("## Scores", "")
    rows = [
        (
            scores.key,
            scores.component,
            count(scores.scored),
            count(scores.examples - scores.scored),
            number(scores.mean),
            number(scores.std),
            correlation(scores.length.text) if scores.length else NOTHING,
        )
        for scores in found
    ]
    columns = ("score", "scorer", "scored", "skipped", "mean", "deviation", "with length")
    yield from table([columns, *rows], text_columns=2)
    for scores in found:
        if scores.audit:
            name = f"{scores.key}: " if len(found) > 1 else ""
            yield from ("", f"**Audit: {escape(name + scores.audit.verdict[0])}**")


def _run(summary: Summary) -> Iterator[str]:
    record = summary.record
    yield from ("## Reproduce", "", *fence(record.command), "")
    yield f"{escape(summary.headline.ran)}; started {record.started}, {duration(record.seconds)}."
    facts = (*record.hardware.items(), *_short(record.versions))
    known = [f"{name} {value}" for name, value in facts]
    yield from ("", escape(", ".join(known)) + ".") if known else ()


def _short(versions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the versions that matter most."""
    wanted = ("selectmoe", "git", "torch", "transformers")
    return [(name, versions[name]) for name in wanted if name in versions]

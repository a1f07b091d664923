"""The report as Markdown: the same numbers as the page, without its pictures."""

import re
from collections.abc import Iterable, Iterator, Sequence

from selectmoe_core.report.summary import (
    EvaluationSummary,
    PoolSummary,
    ScoreSummary,
    SelectionSummary,
    Share,
    ShownExample,
    Summary,
    TrainingSummary,
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


def render_markdown(summary: Summary) -> str:
    """Return the report; texts from data are escaped, or in code blocks that they cannot close."""
    record = summary.record
    lines = [
        f"# {escape(record.name)}",
        "",
        f"Started {record.started}, {duration(record.seconds)}.",
    ]
    for note in summary.notes:
        lines += ["", f"> {escape(note)}"]
    for section in _sections(summary):
        lines += ["", *section]
    return "\n".join(lines) + "\n"


def _sections(summary: Summary) -> Iterator[Iterable[str]]:
    if summary.evaluation:
        yield _evaluation(summary.evaluation)
    if summary.pool:
        yield _pool(summary.pool)
    if summary.scores:
        yield _scores(summary.scores)
    if summary.selection:
        yield _selection(summary.selection)
    if summary.training:
        yield _training(summary.training)
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
    yield ""
    for baseline in evaluation.baselines:
        for row in evaluation.tasks:
            for difference in row.differences:
                if difference.baseline == baseline:
                    kind = "paired" if difference.paired else "unpaired"
                    yield f"- {escape(difference.verdict)} ({kind})."
    yield from (
        "",
        "± is one standard error over the questions; it does not cover other training seeds.",
    )


def _pool(pool: PoolSummary) -> Iterator[str]:
    yield from ("## Pool", "")
    yield (
        f"{plural(pool.examples, 'example')}, {plural(pool.duplicates, 'exact duplicate')} "
        f"dropped, {plural(pool.rejected, 'row')} rejected."
    )
    yield ""
    head = (
        "source",
        "examples",
        "rejected",
        "duplicates",
        "turns",
        "tokens",
        "truncated",
        "empty mask",
    )
    yield from table(
        [
            head,
            *(
                (
                    source.name,
                    count(source.examples),
                    count(source.rejected),
                    count(source.duplicates),
                    f"{source.turns:.2f}",
                    number(source.tokens),
                    count(source.cut),
                    count(source.empty),
                )
                for source in pool.sources
            ),
        ]
    )
    if pool.rejected:
        yield ""
        yield from table([("reason", "rows"), *((text, count(n)) for text, n in pool.reasons)])
        yield from ("", "The first rejected rows:", "")
        for row in pool.rejects:
            yield f"- {escape(row.where)}: {escape(row.reason)}"


def _scores(found: Sequence[ScoreSummary]) -> Iterator[str]:
    for scores in found:
        yield from (f"## Scores: {escape(scores.key)}", "")
        yield (
            f"{escape(scores.component)} scored {count(scores.scored)} of "
            f"{plural(scores.examples, 'example')}: mean {number(scores.mean)}, "
            f"standard deviation {number(scores.std)}."
        )
        for warning in scores.warnings:
            yield from ("", f"**The scorer warns:** {escape(warning)}.", "")
        if scores.length:
            text, answer = (
                correlation(value) for value in (scores.length.text, scores.length.answer)
            )
            yield (
                f"Rank correlation with length: {text} (whole conversation), {answer} (answers), "
                f"on {plural(scores.length.rows, 'row')}."
            )
            if scores.length.strong:
                yield "**The score follows length**: compare it with `score.use=length`."
        yield ""
        yield from table(
            [
                ("source", "scored", "skipped", "5 %", "25 %", "median", "75 %", "95 %"),
                *(
                    (
                        source.name,
                        count(source.scored),
                        count(source.skipped),
                        number(source.low),
                        number(source.first),
                        number(source.median),
                        number(source.third),
                        number(source.high),
                    )
                    for source in scores.sources
                ),
            ]
        )
        if scores.skipped:
            yield ""
            rows = [(source, reason, count(n)) for source, reason, n in scores.skipped]
            yield from table([("source", "reason", "skipped"), *rows], text_columns=2)
        if scores.audit:
            first, *rest = scores.audit.verdict
            yield from ("", f"**Audit: {escape(first)}** {escape(' '.join(rest))}", "")
            yield from table(scores.audit.table)
        yield from _examples("Best", scores.best)
        yield from _examples("Worst", scores.worst)
        yield ""


def _examples(title: str, examples: Iterable[ShownExample]) -> Iterator[str]:
    for example in examples:
        if example.place == 1:
            yield from ("", f"### {title} examples")
        yield from ("", f"{example.place}. **{number(example.score, 5)}** {escape(example.source)}")
        for turn in example.turns:
            left_out = f" ({turn.hidden:,} more characters are not shown)" if turn.hidden else ""
            yield from ("", f"{turn.role}{left_out}:", "", *fence(turn.content))


def _selection(selection: SelectionSummary) -> Iterator[str]:
    yield from ("## Selection", "")
    yield (
        f"{escape(selection.component)} kept {count(selection.kept)} of "
        f"{plural(selection.of, 'example')}."
    )
    for warning in selection.warnings:
        yield from ("", f"**The selector warns:** {escape(warning)}.")
    yield ""
    yield from _shares("source", selection.sources)
    if selection.labels:
        yield ""
        yield from _shares("label", selection.labels)
    if selection.left_out:
        total = sum(rows for _, _, rows in selection.left_out)
        yield from ("", f"Filters left out {plural(total, 'row')}:", "")
        found = [(source, reason, count(rows)) for source, reason, rows in selection.left_out]
        yield from table([("source", "filter and reason", "left out"), *found], text_columns=2)


def _shares(head: str, groups: Sequence[Share]) -> list[str]:
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
        for group in groups
    ]
    return table([columns, *rows])


def _training(found: Sequence[TrainingSummary]) -> Iterator[str]:
    yield from ("## Training", "")
    rows = [
        (
            training.key,
            ", ".join(training.arms),
            count(training.steps),
            number(training.first_loss),
            number(training.last_loss),
        )
        for training in found
    ]
    yield from table([("stage", "arms", "steps", "first loss", "last loss"), *rows], 2)


def _run(summary: Summary) -> Iterator[str]:
    record = summary.record
    yield from ("## What ran", "")
    rows = [
        (
            node.key,
            node.component,
            node.digest[:12],
            ", ".join(node.arms),
            "reused" if node.cached else "made",
            duration(node.seconds),
        )
        for node in record.nodes
    ]
    yield from table([("node", "component", "digest", "arms", "this run", "time"), *rows], 5)
    yield from ("", *fence(record.command), "")
    for name, value in (*record.hardware.items(), *record.versions.items()):
        yield f"- {escape(name)}: {escape(value)}"

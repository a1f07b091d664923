"""The report: what ran, what was selected, and whether the selection helped."""

from dataclasses import dataclass
from pathlib import Path

from selectmoe_core.report.record import NodeRecord, RunRecord
from selectmoe_core.runtime.progress import NoProgress, Progress

__all__ = ["NodeRecord", "Report", "RunRecord", "write_report"]


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Attributes:
        table: tasks by arms with value ± standard error, the head first; empty without evaluation.
        verdicts: one sentence for each task and baseline.
        markdown: the whole report as Markdown.
        page: the HTML file.
        warnings: warnings of scorers about their own scores, one line each.
    """

    table: tuple[tuple[str, ...], ...]
    verdicts: tuple[str, ...]
    markdown: str
    page: Path
    warnings: tuple[str, ...] = ()


def write_report(
    record: RunRecord,
    folder: Path,
    progress: Progress | None = None,
    against: RunRecord | None = None,
) -> Report:
    """Write ``report.json``, ``report.md`` and ``report.html`` into the run's folder.

    Sections of stages that did not run are left out. Memory is bounded by a few columns of the
    score table; texts are read only for the shown examples and a sample.

    Args:
        record: the run.
        folder: where to write.
        progress: shows the progress.
        against: another run, whose selection is compared with this one's.
    """
    from selectmoe_core.report.document import differences, to_document
    from selectmoe_core.report.gather import SECTIONS, gather
    from selectmoe_core.report.html import render_html
    from selectmoe_core.report.markdown import evaluation_rows, render_markdown
    from selectmoe_core.report.wording import one_line
    from selectmoe_core.store import write_json, write_text

    with (progress or NoProgress()).task("report", SECTIONS + 1, "sections") as advance:
        summary = gather(record, advance, against)
        write_json(folder / "report.json", to_document(summary))
        markdown = render_markdown(summary)
        write_text(folder / "report.md", markdown)
        write_text(folder / "report.html", render_html(summary))
        advance(1)
    rows = evaluation_rows(summary.evaluation) if summary.evaluation else []
    verdicts = tuple(difference.verdict for _, difference in differences(summary))
    warnings = tuple(
        one_line(f"{scores.key}: {text}") for scores in summary.scores for text in scores.warnings
    )
    page = folder / "report.html"
    return Report(tuple(map(tuple, rows)), verdicts, markdown, page, warnings)

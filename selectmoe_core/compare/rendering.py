"""A comparison for the terminal and as Markdown."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from selectmoe_core.compare.summary import (
    Row,
    Summary,
    cost_rows,
    cost_sentences,
    rows_of,
    titles,
)
from selectmoe_core.report.markdown import escape, fence, table
from selectmoe_core.runtime.terminal import one_line

GAP = 2
MOST_TASKS = 4
"""Tables that the terminal shows; ``compare.md`` has them all."""
SHORTEST = 8
"""Characters of an arm's name that a narrow terminal shows at least."""

METHOD = (
    "Intervals hold the noise of the questions (a paired bootstrap) and, with several seeds, that "
    "of the seeds (a t distribution). A verdict allows for the number of comparisons (Holm); "
    "intervals of single tasks and arms do not."
)


def text(summary: Summary, width: int) -> str:
    """Return what the terminal shows: notes, tables, verdicts; no line is longer than ``width``."""
    lines: list[str] = []
    for note in summary.notes:
        lines += _wrapped("Note: ", f"{note}.", width)
    shown = list(titles(summary).items())
    for name, title in shown[:MOST_TASKS]:
        lines += ["", *_wrapped("", title, width), *_table(rows_of(summary, name), width)]
    if len(shown) > MOST_TASKS:
        more = f"{len(shown) - MOST_TASKS} further tasks are in compare.md"
        lines += ["", *_wrapped("", more, width)]
    costs = cost_rows(summary)
    if len(costs) > 1:
        title = "Cost, in device-seconds, and estimated FLOPs"
        lines += ["", *_wrapped("", title, width), *_table(costs, width)]
    lines += ["", *_wrapped("", f"On {summary.judged_by}:", width)]
    for sentence in summary.sentences:
        lines += _wrapped("- ", f"{sentence}.", width)
    return "\n".join(lines).strip("\n")


def markdown(summary: Summary) -> str:
    """Return ``compare.md``."""
    return "\n".join(_markdown(summary)) + "\n"


def _markdown(summary: Summary) -> Iterator[str]:
    yield f"# {escape(summary.name)}: comparison"
    yield from ("", f"**{escape(summary.headline)}.**")
    for note in summary.notes:
        yield from ("", f"> {escape(note)}.")
    yield from ("", f"On {escape(summary.judged_by)}:", "")
    for sentence in summary.sentences:
        yield f"- {escape(sentence)}."
    for name, title in titles(summary).items():
        yield from ("", f"## {escape(title)}", "", *table(rows_of(summary, name)))
    costs = cost_rows(summary)
    if len(costs) > 1:
        yield from ("", "## Cost", "", *table(costs), "")
        yield "Device-seconds as measured, FLOPs as estimated; what arms share counts in each."
        yield ""
        for sentence in cost_sentences(summary):
            yield f"- {escape(sentence)}."
    yield from ("", METHOD)
    seeds = ", ".join(map(str, summary.seeds))
    yield from ("", f"Started {escape(summary.started)}, seeds {seeds}:", "")
    yield from fence(summary.command)


def _wrapped(start: str, said: str, width: int) -> list[str]:
    """Return text in lines; a number and its per cent sign stay together."""
    whole = re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", one_line(said))
    lines = textwrap.wrap(
        whole, width, initial_indent=start, subsequent_indent=" " * len(start),
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _table(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Yield the lines of a table; long names are shortened, and then columns broken off."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
    spare = width - sum(sizes[1:]) - GAP * (len(sizes) - 1)
    if spare < min(sizes[0], SHORTEST):
        yield from _blocks(cells, width)
        return
    sizes[0] = min(sizes[0], spare)
    for row in cells:
        first = row[0] if len(row[0]) <= sizes[0] else f"{row[0][: sizes[0] - 1]}…"
        rest = [cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True)]
        yield (" " * GAP).join([first.ljust(sizes[0]), *rest]).rstrip()


def _blocks(cells: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield a block of lines for each row, where the terminal is too narrow for a table."""
    head, *body = cells
    label = max(len(name) for name in head[1:])
    for row in body:
        yield row[0] if len(row[0]) <= width else f"{row[0][: width - 1]}…"
        for name, cell in zip(head[1:], row[1:], strict=True):
            yield f"  {name.ljust(label)}  {cell}"

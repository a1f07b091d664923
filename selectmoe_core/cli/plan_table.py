"""A plan as a table that fits the terminal, with its totals and what each stage reads."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selectmoe_core.cost import Device
from selectmoe_core.plan.estimates import UNKNOWN, shown
from selectmoe_core.runtime.terminal import one_line

COLUMNS = ("stage", "component", "digest", "state", "tokens", "FLOPs", "time", "memory", "disk")
FIGURES = {
    "tokens": "tokens",
    "FLOPs": "flops",
    "time": "seconds",
    "memory": "memory",
    "disk": "disk",
}
DISPENSABLE = ("digest", "FLOPs", "tokens")
"""Columns that are left out on a narrow terminal, in this order."""
GAP = 2
LONGEST = 300
"""Characters of a name that are printed; the longest paths in use are shorter."""


def plan_lines(
    name: str, rows: Sequence[Mapping[str, Any]], device: Device, width: int
) -> Iterator[str]:
    """Yield the lines of a plan: its table, its totals, and what each stage reads.

    Args:
        name: the recipe's name.
        rows: the nodes, as ``estimate`` returns them.
        device: the device that the figures are estimated for.
        width: columns of the terminal; the shortest form of the table may need more.
    """
    yield f"{one_line(name)}, estimated for {device.name}"
    yield ""
    yield from _table([_cells(row) for row in rows], width)
    yield ""
    yield from _totals(rows, device, width)
    yield ""
    for row in rows:
        if row["reads"]:
            yield from wrapped_items(f"{one_line(row['key'])} reads", _read(row), width)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    done = row["state"] == "cached"
    figures = {column: "-" if done else row["shown"][figure] for column, figure in FIGURES.items()}
    return {
        "stage": one_line(row["key"]),
        "component": one_line(row["component"]),
        "digest": row["digest"][:8] if row["digest"] else "hash?",
        "state": row["state"],
        **figures,
    }


def _table(cells: Sequence[Mapping[str, str]], width: int) -> Iterator[str]:
    head = {column: column for column in COLUMNS}
    widths = {column: max(len(row[column]) for row in (head, *cells)) for column in COLUMNS}
    for column in DISPENSABLE:
        if sum(widths.values()) + GAP * (len(widths) - 1) > width:
            del widths[column]
    for row in (head, *cells):
        texts = [
            row[column].rjust(size) if column in FIGURES else row[column].ljust(size)
            for column, size in widths.items()
        ]
        yield (" " * GAP).join(texts).rstrip()


def _totals(rows: Sequence[Mapping[str, Any]], device: Device, width: int) -> Iterator[str]:
    todo = [row for row in rows if row["state"] != "cached"]
    if not todo:
        yield "Nothing to do: every result exists."
        return
    costs = [row["cost"] for row in todo]
    known = {
        figure: [cost[figure] for cost in costs if cost[figure] is not None]
        for figure in ("seconds", "disk", "memory")
    }
    time, disk = (sum(known[figure]) if known[figure] else None for figure in ("seconds", "disk"))
    memory = max(known["memory"], default=None)
    parts = [
        f"time {shown('seconds', time)},",
        f"disk {shown('disk', disk)},",
        f"memory at most {shown('memory', memory)}{_fit(memory, device)}",
    ]
    yield from wrapped_items("Total:", parts, width, between="")
    unknown = [one_line(row["key"]) for row in todo if row["cost"]["seconds"] is None]
    if unknown:
        yield from wrapped_items(
            f"Not counted because unknown ({UNKNOWN}): the time of", unknown, width
        )


def _fit(memory: float | None, device: Device) -> str:
    if memory is None or not device.memory:
        return ""
    size = f"the {shown('memory', device.memory).lstrip('~')} of one {device.name}"
    return f", fits {size}" if memory <= device.memory else f", more than {size}"


def _read(row: Mapping[str, Any]) -> list[str]:
    """Return what a node reads, with its role unless the name already says it."""
    texts = [
        one_line(source if source.startswith(role) else f"{role} {source}")
        for role, source in row["reads"].items()
    ]
    return [text if len(text) <= LONGEST else f"{text[:LONGEST]}..." for text in texts]


def wrapped_items(
    start: str, items: Sequence[str], width: int, between: str = ","
) -> Iterator[str]:
    """Yield ``start`` and the items, separated by commas; no item is split across lines."""
    line = start
    for place, item in enumerate(items):
        word = f" {item}{between if place < len(items) - 1 else ''}"
        if len(line) + len(word) > width and line.strip():
            yield line
            line = "   "
        line += word
    yield line

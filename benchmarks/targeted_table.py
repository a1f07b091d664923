"""The table of the benchmark of targeted selection, from ``compare.json``."""

from collections.abc import Mapping
from typing import Any

from selectmoe_core.compare.costs import PARTS

MEAN = "mean"


def markdown(document: Mapping[str, Any]) -> str:
    """Return the results as Markdown: a row of each arm, and per task score and difference."""
    tasks = [task["name"] for task in document["tasks"]]
    names = [*tasks, *([MEAN] if len(document["judged_tasks"]) > 1 else [])]
    lines = [
        f"| selection | seeds | examples | {' | '.join(map(_title(document), names))} |",
        f"|---|---:|---:|{'---|' * len(names)}",
    ]
    for arm in document["arms"]:
        kept = "" if arm["kept"] is None else f"{arm['kept']:,.0f}"
        cells = [_cell(arm["results"][name]) for name in names]
        lines.append(f"| {arm['label']} | {arm['seeds']} | {kept} | {' | '.join(cells)} |")
    lines += ["", *(f"- {sentence}." for sentence in document["verdicts"])]
    lines += ["", *(f"> {note}." for note in document["notes"])]
    lines += ["", f"| selection | {' | '.join(PARTS)} | FLOPs |"]
    lines += [f"|---|{'---:|' * (len(PARTS) + 1)}"]
    for arm in document["arms"]:
        if arm["kept"] is not None:  # the base model costs nothing
            spent = [f"{arm['device_seconds'][part]:,.0f} s" for part in PARTS]
            flops = sum(filter(None, arm["flops"].values()))
            lines.append(f"| {arm['label']} | {' | '.join(spent)} | {flops:.1e} |")
    return "\n".join(lines) + "\n"


def _title(document: Mapping[str, Any]) -> Any:  # noqa: ANN401
    questions = {task["name"]: task["questions"] for task in document["tasks"]}

    def title(name: str) -> str:
        return name if name == MEAN else f"{name} ({questions[name]:,} questions)"

    return title


def _cell(result: Mapping[str, Any]) -> str:
    """Return a score and its difference to random with the paired 95 % interval, in per cent."""
    score = f"{100 * result['value']:.1f}"
    difference = result["difference"]
    if difference is None:
        return score
    low, high = (100 * difference[end] for end in ("low", "high"))
    bold = "**" if low > 0 or high < 0 else ""
    return f"{score} ({bold}{100 * difference['value']:+.1f}{bold}, {low:+.1f} to {high:+.1f})"

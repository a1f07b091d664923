"""The dataset card beside a selection: what it holds, how it was made, how to load it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import Artifact, Facts

CARD = "README.md"
SOURCES = 20
"""The most sources that the card lists."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The hub's size categories below a million rows."""
LARGE = "1M<n<10M"
FIELDS = (
    ("id", "32 hexadecimal digits, computed from the messages: equal content, equal id"),
    ("source", "the data set that the example came from"),
    ("messages", "the turns, each with `role` and `content`; `weight: 0` is not trained on"),
    ("score", "its score; higher is better"),
    ("rank", "1 for the first that was chosen"),
    ("meta", "where it was found, its original id and its label"),
)


def dataset_card(facts: Facts, spec: NodeSpec, score: Artifact | None, data: str) -> str:
    """Return the card in the hub's format.

    Without ``configs``, `datasets` and the hub would read the table of ranks as the data.

    Args:
        facts: those of the selection.
        spec: the node that selected.
        score: the score that was selected by.
        data: the name of the file with the rows.
    """
    kept, of = int(facts["kept"]), int(facts["of"])
    size = next((name for limit, name in SIZES if kept < limit), LARGE)
    scorer = f", by the score `{score.component}`" if score else ""
    head = [
        "---",
        "pretty_name: Selected instruction data",
        "task_categories: [text-generation]",
        f"size_categories: [{size}]",
        "tags: [instruction-tuning, data-selection, selectmoe]",
        *("configs:", "- config_name: default", f"  data_files: {data}"),
        "---",
    ]
    lines = [
        *head,
        "# Selected instruction data",
        "",
        f"{kept:,} of {of:,} examples ({kept / max(of, 1):.1%}), chosen by selectmoe's selector "
        f"`{spec.component}`{scorer}. The best is first.",
        *("", "```python", "from datasets import load_dataset", ""),
        *('rows = load_dataset("path/of/this/folder", split="train")', "```", ""),
        *_table("field", "meaning", FIELDS),
        *("", "## Sources", "", *_sources(facts["sources"])),
        *("", "## How it was chosen", "", *_options(spec, score)),
        *("", "The licence of each row is that of its source.", ""),
    ]
    return "\n".join(lines)


def _sources(sources: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield the largest sources as a table."""
    ordered = sorted(sources.items(), key=lambda item: (-item[1]["kept"], item[0]))
    rows = [(name, f"{own['kept']:,} of {own['of']:,}") for name, own in ordered[:SOURCES]]
    yield from _table("source", "chosen", rows)
    if len(ordered) > SOURCES:
        rest = sum(own["kept"] for _, own in ordered[SOURCES:])
        yield from ("", f"{len(ordered) - SOURCES:,} more sources have {rest:,} rows.")


def _options(spec: NodeSpec, score: Artifact | None) -> Iterator[str]:
    found: dict[str, Any] = {f"select.{name}": value for name, value in spec.options.items()}
    found |= {"select.use": spec.component, "selection": spec.digest[:12]}
    if score is not None:
        own = score.details.get("options") or {}
        found |= {f"score.{name}": value for name, value in own.items()}
        found |= {"score.use": score.component, "score": score.digest[:12]}
    rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(found.items())]
    yield from _table("option", "value", rows)


def _table(first: str, second: str, rows: Any) -> Iterator[str]:  # noqa: ANN401
    yield from (f"| {first} | {second} |", "|---|---|")
    for name, value in rows:
        yield f"| {_plain(name)} | {_plain(value)} |"


def _plain(text: str) -> str:
    """Return text that stays in its cell and is not read as HTML or Markdown."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\*_\[\]<>|])", r"\\\1", flat)

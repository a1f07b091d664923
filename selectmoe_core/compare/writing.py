"""The files that a comparison leaves in its folder."""

from collections.abc import Mapping
from pathlib import Path

from selectmoe_core.compare.findings import MEAN
from selectmoe_core.compare.page import render_page
from selectmoe_core.compare.planning import Comparison
from selectmoe_core.compare.rendering import markdown
from selectmoe_core.compare.summary import Summary, document, rows_of
from selectmoe_core.report import Report
from selectmoe_core.store import write_json, write_text

JSON, MARKDOWN, PAGE = "compare.json", "compare.md", "compare.html"


def write(summary: Summary, folder: Path) -> Report:
    """Write ``compare.json``, ``compare.md`` and ``compare.html``."""
    write_json(folder / JSON, document(summary))
    text = markdown(summary)
    write_text(folder / MARKDOWN, text)
    write_text(folder / PAGE, render_page(summary))
    rows = tuple(rows_of(summary, MEAN))
    return Report(rows, tuple(summary.sentences), text, folder / PAGE)


def write_recipes(comparison: Comparison, folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Write the recipe of every arm and seed, each of which ``selectmoe run`` takes by itself.

    Returns:
        The files by the arm's label, relative to ``folder``.
    """
    import tomli_w

    (folder / "recipes").mkdir(exist_ok=True)
    found: dict[str, tuple[str, ...]] = {}
    for arm in comparison.arms:
        names = []
        for trial in arm.trials:
            if trial.seed is None:  # the base model: nothing is chosen and nothing trained
                continue
            name = f"recipes/{trial.name.replace(':', '-seed')}.toml"
            write_text(folder / name, tomli_w.dumps(dict(trial.resolved)))
            names.append(name)
        found[arm.label] = tuple(names)
    return found

"""Comparing arms of several strategies and seeds: which differences are more than noise?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selectmoe_core.compare.arms import Sources
from selectmoe_core.compare.planning import Comparison, plan_comparison

if TYPE_CHECKING:
    from selectmoe_core.compare.summary import Summary
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.report import Report, RunRecord
    from selectmoe_core.runner.options import RunOptions

__all__ = ["Comparison", "Outcome", "Sources", "plan_comparison", "run_comparison"]


@dataclass(frozen=True)
class Outcome:
    """What a comparison left.

    Attributes:
        folder: its folder, with ``compare.json``, ``compare.md`` and ``compare.html``.
        summary: what was found.
    """

    folder: Path
    summary: "Summary"


def run_comparison(
    comparison: Comparison,
    registry: "Registry",
    options: "RunOptions",
    say: Callable[[str], None],
) -> Outcome:
    """Execute what is missing of all arms, and write ``compare.json``, ``.md`` and ``.html``.

    Raises:
        StageError: a stage failed; what is finished is kept, and the same call goes on.
    """
    from selectmoe_core.compare.summarise import summarise
    from selectmoe_core.compare.writing import write, write_recipes
    from selectmoe_core.runner.run import Purpose, execute_plan

    found: list[Summary] = []

    def report(record: "RunRecord", folder: Path) -> "Report":
        recipes = write_recipes(comparison, folder)
        found.append(summarise(comparison, registry, record, recipes))
        return write(found[-1], folder)

    outcome = execute_plan(comparison.plan, registry, options, say, Purpose(report))
    return Outcome(outcome.folder, found[-1])

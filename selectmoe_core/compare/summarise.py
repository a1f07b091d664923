"""From a finished comparison to its summary."""

from collections.abc import Mapping

from selectmoe_core.compare.chosen import overlap_of
from selectmoe_core.compare.costs import costs_of, finished
from selectmoe_core.compare.findings import Contender, find
from selectmoe_core.compare.notes import notes_on, notes_on_plan
from selectmoe_core.compare.planning import Comparison
from selectmoe_core.compare.results import left_out, read_tasks
from selectmoe_core.compare.summary import Summary
from selectmoe_core.errors import StageError
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.report.record import RunRecord
from selectmoe_core.store import Artifact


def summarise(
    comparison: Comparison,
    registry: Registry,
    record: RunRecord,
    recipes: Mapping[str, tuple[str, ...]],
) -> Summary:
    """Return what a finished comparison says."""
    evaluations = {
        arm.label: [_finished(comparison, key) for key in arm.evaluations]
        for arm in comparison.arms
    }
    tasks = read_tasks(evaluations)
    findings = find(
        [Contender(arm.label, arm.role, arm.reference) for arm in comparison.arms], tasks
    )
    costs = costs_of(comparison, registry)
    dropped = left_out(evaluations, tasks)
    some = [f"left out, since not every arm has them: {', '.join(dropped)}"] if dropped else []
    seeds = dict.fromkeys(
        trial.seed for arm in comparison.arms for trial in arm.trials if trial.seed is not None
    )
    return Summary(
        name=comparison.plan.recipe.head.name,
        findings=findings,
        costs=costs,
        notes=(
            *notes_on(findings, costs, evaluations, by_tokens=_by_tokens(comparison)),
            *comparison.notes,
            *notes_on_plan(comparison.plan),
            *some,
        ),
        seeds=tuple(seed for seed in seeds if seed is not None),
        command=record.command,
        started=record.started,
        recipes=recipes,
        overlap=overlap_of(comparison),
    )


def _by_tokens(comparison: Comparison) -> bool:
    return comparison.plan.recipe.compare.token_budget is not None


def _finished(comparison: Comparison, key: str) -> Artifact:
    artifact = finished(comparison.plan, key)
    if artifact is None:
        raise StageError(f"{key} is gone from the store", hint="run the same command again")
    return artifact

"""What a reader must know before the figures: uneven arms, chance, a strong base, truncation."""

from collections.abc import Iterator, Mapping, Sequence

from selectmoe_core.compare.costs import ArmCost, finished
from selectmoe_core.compare.findings import MEAN, Findings, Result
from selectmoe_core.plan.node import Plan
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.store import Artifact

TOKENS_APART = 0.1
"""Arms whose selections differ by more than this share of tokens are not on one budget."""
NOBODY_LOOKED = (
    "nobody looked for questions of the evaluation in the pool: `selectmoe plan` says why there is "
    "no filter:leak"
)


def notes_on(
    findings: Findings,
    costs: Mapping[str, ArmCost],
    evaluations: Mapping[str, Sequence[Artifact]],
    *,
    by_tokens: bool = False,
) -> Iterator[str]:
    """Yield what stands above the result, each a sentence without its full stop.

    Args:
        findings: the results.
        costs: what each arm cost and kept, by label.
        evaluations: the evaluations of each arm.
        by_tokens: the arms have an equal number of tokens, not of examples.
    """
    yield from _base(findings)
    yield from _chance(findings)
    yield from _seeds(findings, evaluations)
    yield from _budgets(findings, costs, by_tokens=by_tokens)
    yield from _evaluation(evaluations, [task.name for task in findings.tasks])
    yield from _gone(costs)
    missing = sorted(
        {arm for task in findings.tasks for arm in task.values if arm not in task.answers}
    )
    if missing:
        yield (
            f"without an interval: {', '.join(missing)}; their evaluations kept no answers to "
            "single questions that agree with the results, or answered other questions"
        )


def _base(findings: Findings) -> Iterator[str]:
    base = [one for one in findings.results if one.contender.role == "base"]
    trained = [one for one in findings.results if one.contender.role != "base"]
    sign = 1 if findings.judged[0].higher else -1
    for one in base:
        value = one.figures[MEAN].value
        if trained and all(sign * (value - arm.figures[MEAN].value) > 0 for arm in trained):
            yield (
                f"{one.contender.label} is better than every trained arm: training on any of "
                "these selections made the model worse on these tasks"
            )


def _chance(findings: Findings) -> Iterator[str]:
    for task in findings.tasks:
        at = [one for one in findings.results if one.figures[task.name].at_chance]
        if at:
            names = "every arm" if len(at) == len(findings.results) else _labels(at)
            yield (
                f"at chance on {task.name}: {names}; where two arms are at chance, the task cannot "
                "say which is better"
            )


def _seeds(findings: Findings, evaluations: Mapping[str, Sequence[Artifact]]) -> Iterator[str]:
    trained = [one for one in findings.results if one.contender.role != "base"]
    if trained and all(one.seeds == 1 for one in trained):
        yield (
            "each arm was trained with 1 seed: the noise of seeds is unknown, and is no part of "
            "any interval"
        )
    same = [
        one
        for one in trained
        if one.seeds > 1
        and len({artifact.digest for artifact in evaluations[one.contender.label]}) == 1
    ]
    if same:
        yield f"the seed changes nothing in the training of {_labels(same)}"


def _gone(costs: Mapping[str, ArmCost]) -> Iterator[str]:
    gone = dict.fromkeys(key for cost in costs.values() for key in cost.gone)
    if gone:
        yield f"the cost leaves out what is no longer in the store: {', '.join(gone)}"


def _budgets(findings: Findings, costs: Mapping[str, ArmCost], *, by_tokens: bool) -> Iterator[str]:
    apart = []
    for one in findings.results:
        arm, reference = one.contender.label, one.contender.reference
        own, other = costs.get(arm), costs.get(reference)
        if one.contender.role in ("base", "full") or own is None or other is None:
            continue
        if own.kept and other.kept and own.kept != other.kept and not by_tokens:
            yield (
                f"not one budget: {arm} trains on {own.kept:,.0f} examples, {reference} on "
                f"{other.kept:,.0f}; compare.budget=N gives all arms as many"
            )
        elif own.tokens and other.tokens and abs(own.tokens / other.tokens - 1) > TOKENS_APART:
            apart.append(f"{arm} on {own.tokens / other.tokens:.2f} times those of {reference}")
    if apart:
        why = "they have one budget" if by_tokens else "each has as many examples"
        yield f"the arms train on different numbers of tokens, though {why}: {', '.join(apart)}"


def _evaluation(
    evaluations: Mapping[str, Sequence[Artifact]], tasks: Sequence[str]
) -> Iterator[str]:
    """Yield what evaluations warn of, once; what only some arms have names them.

    A task at chance is left out here: another note says it of all arms together.
    """
    arms: dict[str, list[str]] = {}
    for label, found in evaluations.items():
        for text in dict.fromkeys(str(t) for one in found for t in one.facts.get("warnings", ())):
            if not any(text.startswith(f"{task} is at chance") for task in tasks):
                arms.setdefault(text, []).append(label)
    for text, labels in arms.items():
        yield text if len(labels) == len(evaluations) else f"{', '.join(labels)}: {text}"


def notes_on_plan(plan: Plan) -> Iterator[str]:
    """Yield what the filters found of the evaluation's questions, and where templates differ."""
    finders = [
        node
        for node in plan.nodes.values()
        if node.stage == "filter" and Need.QUESTIONS in node.entry.component.needs(node.config)
    ]
    for node in finders:
        artifact = finished(plan, node.key)
        if artifact is not None and artifact.facts["left_out"]:
            yield (
                f"{artifact.facts['left_out']:,} of {artifact.facts['examples']:,} rows of the "
                f"pool hold questions of the evaluation: {node.key.partition('@')[0]} left them out"
            )
    if not finders:
        yield NOBODY_LOOKED


def _labels(results: Sequence[Result]) -> str:
    return ", ".join(one.contender.label for one in results)

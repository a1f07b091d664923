"""The headline: one sentence, an honest verdict, what to know before, and what to do next."""

import math
import shlex
import tomllib
from collections.abc import Iterator

from selectmoe_core.report.findings import Headline
from selectmoe_core.report.next_commands import audit_scores, compare_seeds
from selectmoe_core.report.sections.command import CommandLine
from selectmoe_core.report.summary import (
    STRONG_CORRELATION,
    Difference,
    EvaluationSummary,
    Result,
    Summary,
    TaskRow,
)
from selectmoe_core.report.wording import correlation, duration, number, percent, plural

Z = 1.959964
"""The 97.5 % quantile of the normal distribution: a 95 % interval."""
BASELINE = "random"
ONE_RUN = "one training run: the noise of seeds is not in it"
VERDICTS = {
    "better": "{own} beats {other}",
    "worse": "{own} is worse than {other}",
    "no difference": "no measurable difference from {other}",
    "no verdict": "no verdict",
}


def make_headline(summary: Summary) -> Headline:
    """Return the headline of a report whose sections are filled."""
    line = CommandLine.read(summary.record.command)
    result, verdict, said = _result(summary)
    return Headline(
        selection=_selection(summary),
        result=result,
        verdict=verdict,
        verdict_text=said,
        overrides=line.overrides,
        ran=_ran(summary, line),
        warnings=tuple(dict.fromkeys(_warnings(summary))),
        next_steps=tuple(_next_steps(summary, line)),
    )


def _selection(summary: Summary) -> str:
    selection = summary.selection
    if selection is None:
        return ""
    share = selection.kept / selection.of if selection.of else 0.0
    by = summary.scores[0].component if summary.scores else selection.component
    return (
        f"{selection.kept:,} of {plural(selection.of, 'example')} ({percent(share)}) chosen by {by}"
    )


def _result(summary: Summary) -> tuple[str, str, str]:
    """Return the sentence, the verdict and the verdict in words."""
    evaluation = summary.evaluation
    row = evaluation.tasks[-1] if evaluation else None
    if evaluation is None or row is None or summary.own not in row.results:
        return "", "", ""
    own = row.results[summary.own]
    others = sorted(row.differences, key=lambda difference: difference.baseline != BASELINE)
    if not others:
        value = _value(own.value, row)
        return f"{_measure(row)} {value}; no baseline was evaluated", "no verdict", "no baseline"
    difference = others[0]
    baseline = row.results[difference.baseline]
    kind = verdict_of(difference, own, baseline, higher=row.higher_is_better)
    said = VERDICTS[kind].format(own=summary.own, other=difference.baseline)
    return _sentence(row, own, baseline, difference), kind, said


def _sentence(row: TaskRow, own: Result, baseline: Result, difference: Difference) -> str:
    points = _is_share(row)
    scale = 100 if points else 1
    gap = f"{scale * difference.value:+.1f} points" if points else f"{difference.value:+.4g}"
    found = (
        f"{_measure(row)} {_value(own.value, row)} against {difference.baseline}'s "
        f"{_value(baseline.value, row)}: {gap}"
    )
    if difference.stderr is None:
        return f"{found} (no standard error, so no interval)"
    ends = [scale * (difference.value + side * Z * difference.stderr) for side in (-1, 1)]
    low, high = (f"{end:.1f}" if points else f"{end:.4g}" for end in ends)
    return f"{found} (95 % interval {low} to {high}; {ONE_RUN})"


def verdict_of(difference: Difference, own: Result, baseline: Result, *, higher: bool) -> str:
    """Return a key of ``VERDICTS``: what the 95 % interval of a difference allows to say."""
    if difference.stderr is None or (own.at_chance and baseline.at_chance):
        return "no verdict"
    if abs(difference.value) <= Z * difference.stderr:
        return "no difference"
    return "better" if (difference.value > 0) == higher else "worse"


def _measure(row: TaskRow) -> str:
    if not row.metric:  # the mean of several tasks, which are all accuracies
        return "mean accuracy"
    plain = row.metric.partition(",")[0]
    return {"acc": "accuracy", "acc_norm": "accuracy (normalised)"}.get(plain, plain)


def _is_share(row: TaskRow) -> bool:
    values = [abs(result.value) for result in row.results.values()]
    return row.chance is not None and all(value <= 1 for value in values)


def _value(value: float, row: TaskRow) -> str:
    return percent(value) if _is_share(row) else number(value)


def _ran(summary: Summary, line: CommandLine) -> str:
    record = summary.record
    stages = dict.fromkeys(node.stage for node in record.nodes)
    made = sum(not node.cached for node in record.nodes)
    reused = len(record.nodes) - made
    what = " → ".join(stages) or "nothing"
    end = f", stopped after {line.until} as asked" if line.until else ""
    return (
        f"{what}{end}. {plural(made, 'result')} made and {reused:,} reused in "
        f"{duration(record.seconds)}"
    )


def _warnings(summary: Summary) -> Iterator[str]:
    yield from summary.notes
    for scores in summary.scores:
        yield from (f"{scores.key}: {text}" for text in scores.warnings)
        if scores.audit is not None and scores.audit.level != "yes":
            yield f"{scores.key}: {scores.audit.verdict[0]}"
    first = summary.scores[0] if summary.scores else None
    if first and first.component != "length" and (length := first.length) and length.strong:
        found = max((length.text, length.answer), key=lambda v: abs(v) if math.isfinite(v) else 0)
        yield (
            f"the score follows length (rank correlation {correlation(found)}, beyond "
            f"±{STRONG_CORRELATION}): compare it with score.use=length before believing in it"
        )
    if summary.selection:
        yield from (f"select: {text}" for text in summary.selection.warnings)
    if summary.evaluation:
        yield from _of_evaluation(summary.evaluation, summary.own)


def _of_evaluation(evaluation: EvaluationSummary, own: str) -> Iterator[str]:
    if not evaluation.baselines:
        yield "no baseline was evaluated, so the report cannot say whether the selection helped"
    chance = [row.task for row in evaluation.tasks if row.metric and _all_at_chance(row)]
    if chance:
        yield f"every arm is at chance on {', '.join(chance)}: these tasks decide nothing"
    for row in evaluation.tasks[-1:]:
        base, tuned = row.results.get("base"), row.results.get(own)
        if base and tuned and (base.value > tuned.value) == row.higher_is_better:
            yield "the untouched base model is better than the model trained on the selection"


def _all_at_chance(row: TaskRow) -> bool:
    return bool(row.results) and all(result.at_chance for result in row.results.values())


def _lacking(summary: Summary) -> str:
    """Return what the recipe needs before it trains and evaluates, or an empty text."""
    tables = tomllib.loads(summary.record.recipe)
    lacking = [f"[{name}]" for name in ("train", "evaluate") if name not in tables]
    return f" First add {' and '.join(lacking)} to the recipe" if lacking else ""


def _next_steps(summary: Summary, line: CommandLine) -> Iterator[tuple[str, str]]:
    recipe = line.recipe or summary.record.name
    if summary.selection and summary.evaluation:
        yield compare_seeds(recipe, line.overrides)
    elif summary.selection:
        command = shlex.join(["selectmoe", "run", recipe, *line.overrides])
        yield f"Does training on it help?{_lacking(summary)}", command
    if summary.scores and summary.scores[0].audit is None:
        yield audit_scores(recipe, line.overrides)
    fraction = tomllib.loads(summary.record.recipe).get("select", {}).get("fraction")
    if summary.selection and isinstance(fraction, float | int) and fraction <= 0.5:
        others = [one for one in line.overrides if not one.startswith("select.fraction=")]
        more = [*others, f"select.fraction={2 * fraction:g}"]
        yield "Is more data better?", shlex.join(["selectmoe", "run", recipe, *more])

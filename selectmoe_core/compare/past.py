"""Finished runs side by side, without running anything."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from selectmoe_core.compare.findings import Contender, find
from selectmoe_core.compare.notes import NOBODY_LOOKED, notes_on
from selectmoe_core.compare.results import left_out, read_tasks
from selectmoe_core.compare.runs import changes_shown, differences, flat
from selectmoe_core.compare.summary import Summary
from selectmoe_core.errors import StageError
from selectmoe_core.report.record import RunRecord
from selectmoe_core.store import Artifact

BASELINES = ("base", "random")


def compare_runs(folders: Sequence[Path]) -> Summary:
    """Return the comparison of the own selections of finished runs.

    They are compared with the random arm of the first run that has one, or else with the first run.

    Raises:
        StageError: a folder is no run with an evaluation of its own, or the runs share no task.
    """
    if len(folders) < 2:
        raise StageError(
            "one run cannot be compared with itself", hint="name two folders of finished runs"
        )
    records = [RunRecord.load(folder) for folder in folders]
    evaluations: dict[str, list[Artifact]] = {}
    contenders: list[Contender] = []
    for baseline in BASELINES:
        found = [one for one in (_evaluation(record, baseline) for record in records) if one]
        if found:
            evaluations[baseline] = found[:1]
    labels = _labels(folders, records)
    reference = "random" if "random" in evaluations else labels[0]
    for label, folder, record in zip(labels, folders, records, strict=True):
        own = _evaluation(record, "selected")
        if own is None:
            raise StageError(
                f"{folder} has no finished evaluation of a selection of its own",
                hint="compare runs of `selectmoe run` that ended with an evaluation",
            )
        evaluations[label] = [own]
    for label in evaluations:
        role = label if label in BASELINES else "strategy"
        contenders.append(Contender(label, role, "" if label == reference else reference))
    tasks = read_tasks(evaluations)
    findings = find(contenders, tasks)
    dropped = left_out(evaluations, tasks)
    notes = [*notes_on(findings, {}, evaluations)]
    if dropped:
        notes.append(f"left out, since not every run has them: {', '.join(dropped)}")
    notes = [*_uneven(labels, records), *notes, *_unguarded(records)]
    notes += _differing(labels, records)
    first = records[0]
    return Summary(
        f"{len(folders)} runs", findings, {}, tuple(notes), (), first.command, first.started, {}
    )


def _evaluation(record: RunRecord, arm: str) -> Artifact | None:
    """Return an arm's evaluation, where it is there.

    Raises:
        StageError: it is damaged.
    """
    for node in record.nodes:
        if node.stage == "evaluate" and arm in node.arms:
            found = Artifact.load(node.folder)
            if damage := found.damage() if found is not None else "":
                hint = "run the recipe again: what is damaged is made again"
                raise StageError(f"{node.key}: {damage}", hint=hint)
            return found
    return None


DEFAULT = "the default"
FOOTING = {
    "chat": "the chat format differs",
    "evaluate": "the evaluation differs",
    "train": "the training differs",
}
"""Tables in which runs must agree for a fair comparison, and what is said where they do not."""


def _uneven(labels: Sequence[str], records: Sequence[RunRecord]) -> Iterator[str]:
    """Yield where runs do not stand on the same footing: template, questions, training."""
    first, *others = (flat(tomllib.loads(record.recipe)) for record in records)
    for label, options in zip(labels[1:], others, strict=True):
        for table, said in FOOTING.items():
            names = [
                name
                for name in dict.fromkeys([*first, *options])
                if name.startswith(f"{table}.") and first.get(name) != options.get(name)
            ]
            if names:
                values = [
                    f"{name} {options.get(name, DEFAULT)} against {first.get(name, DEFAULT)}"
                    for name in names
                ]
                yield f"{said} between {label} and {labels[0]}: {', '.join(values)}"


def _unguarded(records: Sequence[RunRecord]) -> Iterator[str]:
    """Yield that nobody looked for leaks; what looks for them needs the questions as a stage."""
    if not any(node.stage == "questions" for record in records for node in record.nodes):
        yield NOBODY_LOOKED


def _differing(labels: Sequence[str], records: Sequence[RunRecord]) -> Iterator[str]:
    """Yield in which options each run differs from the first one."""
    first, *others = (flat(tomllib.loads(record.recipe)) for record in records)
    for label, options in zip(labels[1:], others, strict=True):
        yield f"{label} differs from {labels[0]} in {changes_shown(differences(first, options))}"


def _labels(folders: Sequence[Path], records: Sequence[RunRecord]) -> list[str]:
    """Name runs by their recipes, and by date and time where two have one name, or a baseline's."""
    names = [*BASELINES, *(record.name for record in records)]
    return [
        record.name if names.count(record.name) == 1 else "/".join(folder.resolve().parts[-3:])
        for record, folder in zip(records, folders, strict=True)
    ]

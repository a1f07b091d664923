"""The past runs of an output folder: when, of which recipe, what differed, and what came out."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.compare.results import mean_result
from selectmoe_core.errors import SelectMoEError
from selectmoe_core.report.record import RECORD, RunRecord
from selectmoe_core.store import Artifact

FIRST_ARMS = ("selected", "random", "base")
SHOWN = 3
"""Options that differ, and results, that a line of the table shows."""


@dataclass(frozen=True)
class PastRun:
    """One run of an output folder.

    Attributes:
        folder: its folder.
        name: the recipe's name.
        started: ISO date and time; empty where its record cannot be read.
        kind: ``run``, ``compare`` or ``audit``.
        changes: options that differ from the run of that recipe before it; ``None`` for the first.
        result: what came out, in a few words.
        command: the command line.
    """

    folder: Path
    name: str
    started: str
    kind: str
    changes: Mapping[str, Any] | None
    result: str
    command: str


def past_runs(outputs: Path) -> list[PastRun]:
    """Return the runs below an output folder, the latest first."""
    paths = sorted(outputs.glob(f"*/*/*/{RECORD}"), key=lambda path: path.parent.parts[-2:])
    before: dict[str, Mapping[str, Any]] = {}
    found = []
    for path in paths:
        run, options = _read(path.parent, before.get(path.parent.parts[-3]))
        before[run.name] = options
        found.append(run)
    return found[::-1]


def _read(folder: Path, before: Mapping[str, Any] | None) -> tuple[PastRun, Mapping[str, Any]]:
    name = folder.parts[-3]
    try:
        record = RunRecord.load(folder)
        options = flat(_unnamed(tomllib.loads(record.recipe)))
    except (SelectMoEError, tomllib.TOMLDecodeError):
        return PastRun(folder, name, "", "run", None, "its record is damaged", ""), before or {}
    kind = next(
        (kind for kind in ("compare", "audit") if (folder / f"{kind}.json").is_file()), "run"
    )
    changes = None if before is None else differences(before, options)
    result = _result(record, folder, kind)
    return PastRun(folder, name, record.started, kind, changes, result, record.command), options


def _unnamed(table: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose only score has no name, where that is the scorer's: audits add it."""
    scores = table.get("score", {})
    if len(scores) == 1:
        [(name, score)] = scores.items()
        if isinstance(score, Mapping) and score.get("use") == name:
            return {**table, "score": score}
    return table


def flat(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options of a recipe by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, (*path, key))
        else:
            found[".".join((*path, key))] = value
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that changed, with their new value; ``None``: it is gone."""
    names = dict.fromkeys([*after, *before])
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}


def _result(record: RunRecord, folder: Path, kind: str) -> str:
    if kind == "compare":
        return _of_comparison(folder / "compare.json")
    if kind == "audit":
        return _of_audit(folder / "audit.json")
    if not (folder / "report.json").is_file():
        return "not finished"
    values = dict(_values(record))
    ordered = [
        *(arm for arm in FIRST_ARMS if arm in values),
        *(a for a in values if a not in FIRST_ARMS),
    ]
    return ", ".join(f"{arm} {values[arm]:.3f}" for arm in ordered[:SHOWN]) or "no evaluation"


def _values(record: RunRecord) -> Iterator[tuple[str, float]]:
    for node in record.nodes:
        artifact = _artifact(node.folder) if node.stage == "evaluate" else None
        value = mean_result(artifact) if artifact else None
        if value is not None:
            yield from ((arm, value) for arm in node.arms)


def _artifact(folder: Path) -> Artifact | None:
    try:
        return Artifact.load(folder)
    except SelectMoEError:
        return None


TRUST = {"yes": "trusted", "partly": "trusted partly", "no": "not trusted", "unknown": "not judged"}
"""The levels of an audit's verdict, in words."""


def _of_audit(path: Path) -> str:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
        named = [score for score in scores if not score["name"].startswith("(")]
        return ", ".join(f"{score['name']} {TRUST[score['level']]}" for score in named)
    except (OSError, ValueError, KeyError, TypeError):
        return "audit"


def _of_comparison(path: Path) -> str:
    try:
        arms = json.loads(path.read_text(encoding="utf-8"))["arms"]
        kinds = [arm["verdict"]["kind"] for arm in arms if arm["role"] == "strategy"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its result is damaged"
    return f"{kinds.count('better')} of {len(kinds)} strategies beat random"


def changes_shown(changes: Mapping[str, Any] | None) -> str:
    """Return what differed as text."""
    if changes is None:
        return "(first run)"
    shown = [
        f"{name}={value}" if value is not None else f"~{name}" for name, value in changes.items()
    ]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more or "nothing"


def table(runs: Sequence[PastRun], outputs: Path) -> list[tuple[str, ...]]:
    """Return the runs as text, a row each, the head first."""
    rows: list[tuple[str, ...]] = [("run", "kind", "result", "what differed")]
    for run in runs:
        where = run.folder.relative_to(outputs).as_posix()
        rows.append((where, run.kind, run.result, changes_shown(run.changes)))
    return rows

"""The audit by labels: what does each score of a recipe see of the quality that a user labelled?"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selectmoe_core.audit.labelled.planning import STAGE, LabelledPlan, plan_labelled
from selectmoe_core.runtime.processes import not_swallowed
from selectmoe_core.store import Artifact, write_json

if TYPE_CHECKING:
    import numpy as np

    from selectmoe_core.audit.labelled.findings import Labelled
    from selectmoe_core.audit.labelled.rendering import LabelAudit
    from selectmoe_core.data.pool import Pool
    from selectmoe_core.plan.node import Node
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.report import Report, RunRecord
    from selectmoe_core.runner.options import RunOptions

__all__ = ["LabelOutcome", "plan_labelled", "run_labelled"]


@dataclass(frozen=True)
class LabelOutcome:
    """The result: its folder, with ``audit.json`` and ``audit.md``, and what was found."""

    folder: Path
    audit: "LabelAudit"


def run_labelled(
    planned: LabelledPlan, registry: "Registry", options: "RunOptions", say: Callable[[str], None]
) -> LabelOutcome:
    """Execute what is missing, examine the scores, write ``audit.json`` and ``audit.md``.

    Raises:
        DataError: a labelled row cannot be used.
        StageError: a stage failed.
    """
    from selectmoe_core.runner.run import Purpose, execute_plan

    found: list[LabelAudit] = []

    def read(node: "Node") -> Artifact:
        artifact = _read(planned, node, say)
        _check_early(planned)
        return artifact

    def report(_: "RunRecord", folder: Path) -> "Report":
        found.append(_examine(planned))
        return _write(found[-1], folder)

    _check_early(planned)
    outcome = execute_plan(planned.plan, registry, options, say, Purpose(report, {STAGE: read}))
    return LabelOutcome(outcome.folder, found[-1])


@not_swallowed()
def _read(planned: LabelledPlan, node: "Node", say: Callable[[str], None]) -> Artifact:
    """Make the artifact of the labelled rows, or return what another run made meanwhile."""
    from selectmoe_core.audit.labelled.labels import make_labelled
    from selectmoe_core.plugin.protocols import Job

    store, digest = planned.plan.store, node.digest
    assert digest is not None
    with store.lock(node.stage, digest, say):
        if done := store.find(node.stage, digest):
            return done
        start, folder = time.monotonic(), store.folder(node.stage, digest)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        part = node.entry.build(node.config, where=node.where)
        facts = make_labelled(part, Job(seed=0), folder, planned.column)
        name, seconds = node.entry.component.name, time.monotonic() - start
        details = {"options": node.config.model_dump(mode="json")}
        artifact = Artifact(node.stage, name, digest, folder, facts, seconds, details)
        artifact.save()
        return artifact


def _examine(planned: LabelledPlan) -> "LabelAudit":
    """Measure every score of a finished plan against the labels."""
    import numpy as np

    from selectmoe_core.audit.labelled.findings import Labelled, examine
    from selectmoe_core.audit.labelled.labels import VALUES
    from selectmoe_core.audit.labelled.rendering import LENGTH, LabelAudit
    from selectmoe_core.data.pool import Pool
    from selectmoe_core.data.scores import ScoreTable
    from selectmoe_core.report.distribution import lengths

    plan = planned.plan
    node = plan.nodes[STAGE]
    pool = Pool.open(plan.folder(node))
    artifact = plan.store.find(node.stage, node.digest or "")
    assert artifact is not None
    paired = artifact.facts["kind"] == "pairs"
    prompts, kept = _kept(planned, pool, paired=paired)
    _, answer = lengths(pool, np.arange(len(pool)))
    value = np.load(pool.folder / VALUES)
    _check_left(value[kept])
    rows = Labelled.of(value[kept], prompts[kept], answer[kept], paired=paired)
    findings = []
    for score in (score for score in plan.nodes.values() if score.stage == "score"):
        found = ScoreTable.open(plan.folder(score)).score()[kept]
        name = score.key.partition(":")[2]
        findings.append(examine(name, score.entry.component.name, found, rows))
    findings.append(examine(LENGTH, LENGTH, rows.length, rows))
    facts = {**artifact.facts, **_counts(rows), "excluded": len(pool) - len(kept)}
    return LabelAudit(plan.recipe.head.name, facts, rows, tuple(findings))


def _check_early(planned: LabelledPlan) -> None:
    """Raise before the warm-up if it would see all labelled rows, as far as that is known yet."""
    import numpy as np

    from selectmoe_core.audit.labelled.labels import VALUES
    from selectmoe_core.data.pool import Pool

    plan = planned.plan
    known = [node for key, node in plan.nodes.items() if key in (STAGE, "pool", "pairs")]
    if any(plan.store.find(node.stage, node.digest or "") is None for node in known):
        return
    artifact = plan.store.find(STAGE, plan.nodes[STAGE].digest or "")
    assert artifact is not None
    pool = Pool.open(plan.folder(plan.nodes[STAGE]))
    _, kept = _kept(planned, pool, paired=artifact.facts["kind"] == "pairs")
    _check_left(np.load(pool.folder / VALUES)[kept])


def _kept(
    planned: LabelledPlan, pool: "Pool", *, paired: bool
) -> tuple["np.ndarray", "np.ndarray"]:
    """Return a number for each row's prompt, and the rows that the warm-up does not see."""
    import numpy as np

    prompts, seen = _prompts(pool, planned)
    halves = seen.reshape(-1, 2).any(axis=1).repeat(2) if paired else seen
    return prompts, np.flatnonzero(~halves)


def _counts(rows: "Labelled") -> dict[str, int]:
    import numpy as np

    prompts = len(np.unique(rows.prompts))
    return {"judged": len(rows.value), "prompts": prompts, "pairs": len(rows.pairs)}


def _check_left(value: "np.ndarray") -> None:
    from selectmoe_core.errors import StageError

    if len(set(value.tolist())) < 2:
        raise StageError(
            "too few labelled rows are left: the warm-up has seen the prompts of the others",
            hint="label rows that neither [warmup.pairs] nor the warm-up's sample holds",
        )


def _prompts(pool: "Pool", planned: LabelledPlan) -> tuple["np.ndarray", "np.ndarray"]:
    """Return a number for each row's prompt, and whether the warm-up has seen the row.

    Seen is a row of its sample, and a row whose prompt one of its preference pairs has.
    """
    import numpy as np

    from selectmoe_core.data.pairs import PairTable
    from selectmoe_core.data.pool import Pool

    plan, sampled, asked = planned.plan, set(), set()
    if any(planned.warmed.values()):
        warmup = plan.nodes["warmup"]
        if "pairs" in plan.nodes:
            pairs = PairTable.open(plan.folder(plan.nodes["pairs"]))
            asked = {example.prompt for example in pairs.chosen()}
        source, ratio = Pool.open(plan.folder(plan.nodes["pool"])), warmup.own.subset_ratio
        rows = source.sample(ratio, warmup.seed) if ratio else np.arange(len(source))
        sampled = {words.tobytes() for words in source.ids()[rows]}
    examples = list(pool.examples())
    known = [
        words.tobytes() in sampled or example.prompt in asked
        for words, example in zip(pool.ids(), examples, strict=True)
    ]
    codes = np.unique([example.prompt for example in examples], return_inverse=True)[1]
    return np.asarray(codes), np.array(known)


def _write(audit: "LabelAudit", folder: Path) -> "Report":
    from selectmoe_core.audit.labelled.findings import judge_labels
    from selectmoe_core.audit.labelled.rendering import (
        label_document,
        label_markdown,
        label_rows,
    )
    from selectmoe_core.report import Report

    write_json(folder / "audit.json", label_document(audit))
    text = label_markdown(audit)
    (folder / "audit.md").write_text(text, encoding="utf-8")
    verdicts = tuple(" ".join(judge_labels(f, audit.rows).sentences) for f in audit.scores)
    return Report(tuple(label_rows(audit)), verdicts, text, folder / "audit.md")

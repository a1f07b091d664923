"""The audit: labelled damage is planted into a sample of the pool; which scores find it?"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selectmoe_core.audit.planning import STAGE, AuditPlan, plan_audit
from selectmoe_core.store import Artifact, Facts, write_json

if TYPE_CHECKING:
    import numpy as np

    from selectmoe_core.audit.findings import Sample
    from selectmoe_core.audit.fitting import BlendFit, TooFew
    from selectmoe_core.audit.rendering import Audit
    from selectmoe_core.plan.node import Node
    from selectmoe_core.plugin.registry import Registry
    from selectmoe_core.report import Report, RunRecord
    from selectmoe_core.runner.options import RunOptions

__all__ = ["Outcome", "plan_audit", "run_audit"]


@dataclass(frozen=True)
class Outcome:
    """The result of an audit.

    Attributes:
        folder: its folder, with ``audit.json`` and ``audit.md``.
        audit: what was found.
    """

    folder: Path
    audit: "Audit"


def run_audit(
    audit: AuditPlan, registry: "Registry", options: "RunOptions", say: Callable[[str], None]
) -> Outcome:
    """Execute what is missing, examine the scores, write ``audit.json`` and ``audit.md``.

    Raises:
        StageError: a stage failed, or too few rows are left to plant damage in.
    """
    from selectmoe_core.audit.planting import make_pool
    from selectmoe_core.audit.rendering import document
    from selectmoe_core.runner.run import Purpose, execute_plan

    found: list[Audit] = []

    def plant(node: "Node") -> Artifact:
        return make_pool(audit, node, say)

    def report(_: "RunRecord", folder: Path) -> "Report":
        found.append(_examine(audit))
        _keep(audit, document(found[-1]))
        return _write(found[-1], folder)

    outcome = execute_plan(audit.plan, registry, options, say, Purpose(report, {STAGE: plant}))
    return Outcome(outcome.folder, found[-1])


def _examine(audit: AuditPlan) -> "Audit":
    """Measure every score of a finished plan against the labels."""
    from selectmoe_core.audit.findings import Sample, examine_score
    from selectmoe_core.audit.rendering import Audit
    from selectmoe_core.data.pool import Pool
    from selectmoe_core.data.scores import ScoreTable

    plan = audit.plan
    facts = dict(_artifact(audit, STAGE).facts)
    sample = Sample.open(Pool.open(plan.folder(plan.nodes[STAGE])), audit.damages)
    share = audit.share(int(_artifact(audit, "pool").facts["examples"]))
    findings, digests, scores = [], {}, {}
    for node in (node for node in plan.nodes.values() if node.stage == "score"):
        score = ScoreTable.open(plan.folder(node)).score()
        name = node.key.partition(":")[2]
        scores[node.key] = score
        findings.append(
            examine_score(
                name,
                node.entry.component.name,
                score,
                sample,
                shown=audit.shown[node.key],
                fraction=share,
            )
        )
        digests[name] = audit.originals[node.key]
    length = examine_score(LENGTH, LENGTH, sample.answer, sample, shown=(), fraction=share)
    blend = _fit(audit, scores, sample) if audit.blended else None
    return Audit(plan.recipe.head.name, facts, (length,), tuple(findings), digests, blend)


def _fit(
    audit: AuditPlan, scores: "Mapping[str, np.ndarray]", sample: "Sample"
) -> "BlendFit | TooFew":
    """Fit a blend on the kinds that none of its scores was made with."""
    from selectmoe_core.audit.fitting import fit_blend

    kinds = [
        kind for kind in audit.damages if not any(kind in audit.shown[key] for key in audit.blended)
    ]
    named = {key.partition(":")[2]: scores[key] for key in audit.blended}
    return fit_blend(named, sample.labels, kinds)


LENGTH = "(length)"
"""The name of the baseline of every score: the characters of the answers."""


def _artifact(audit: AuditPlan, key: str) -> Artifact:
    node = audit.plan.nodes[key]
    artifact = audit.plan.store.find(node.stage, node.digest or "")
    assert artifact is not None
    return artifact


def _keep(audit: AuditPlan, facts: Facts) -> None:
    """Write the audit into the store, where the report of a run finds it by its scores' digests."""
    digests = {key: node.digest for key, node in audit.plan.nodes.items()}
    content = json.dumps([digests, facts], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    folder = audit.plan.store.folder("audit", digest)
    folder.mkdir(parents=True, exist_ok=True)
    Artifact("audit", "audit", digest, folder, facts).save()


def _write(audit: "Audit", folder: Path) -> "Report":
    from selectmoe_core.audit.rendering import document, markdown, rows
    from selectmoe_core.audit.verdict import judge
    from selectmoe_core.report import Report

    write_json(folder / "audit.json", document(audit))
    text = markdown(audit)
    (folder / "audit.md").write_text(text, encoding="utf-8")
    verdicts = tuple(" ".join(judge(finding).sentences) for finding in audit.scores)
    return Report(tuple(rows(audit.scores)), verdicts, text, folder / "audit.md")

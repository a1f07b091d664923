"""The findings of an audit about a score, if there was an audit of exactly this score."""

from selectmoe_core.report.summary import AuditSummary
from selectmoe_core.store import Artifact

STAGE = "audit"


def find_audit(score: Artifact) -> AuditSummary | None:
    """Return the newest audit of a finished score, from the same store.

    An audit names its scores by their digests, so an audit with another pool, another Select-MoE
    model or other options is not found.
    """
    manifests = score.folder.parent.glob(f"{STAGE}-*/artifact.json")
    for manifest in sorted(manifests, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        audit = Artifact.load(manifest.parent)
        if audit is None or audit.stage != STAGE:
            continue
        for found in audit.facts["scores"]:
            if found["of"] == score.digest:
                table = tuple(tuple(row) for row in found["table"])
                return AuditSummary(found["level"], tuple(found["verdict"]), table)
    return None

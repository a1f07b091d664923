"""What an audit found out about a score, where one was made of just this score."""

from selectmoe_core.report.summary import AuditSummary
from selectmoe_core.store import Artifact

STAGE = "audit"


def find_audit(score: Artifact) -> AuditSummary | None:
    """Return the newest audit of a finished score, from the store that it lies in.

    An audit names the scores that it speaks of by their digests: another pool, another selector
    model or other options, and it is not found.
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

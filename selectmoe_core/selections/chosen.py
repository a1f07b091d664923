"""The selection of a run, with the pool and the score that it was made from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selectmoe_core.config import suggest
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.selection import LEFT_OUT, SELECTION
from selectmoe_core.errors import RecipeError, StageError
from selectmoe_core.report.record import NodeRecord, RunRecord
from selectmoe_core.stages.select import SELECTED
from selectmoe_core.store import Artifact

OWN = "selected"


@dataclass(frozen=True)
class Chosen:
    """A finished selection.

    Attributes:
        run: the folder of the run.
        record: what the run did.
        artifact: the selection.
    """

    run: Path
    record: RunRecord
    artifact: Artifact

    @classmethod
    def open(cls, run: Path, arm: str = OWN) -> "Chosen":
        """Open the selection of an arm of a run.

        Raises:
            StageError: the run has no selection, or its files are gone or damaged.
            RecipeError: the run has no such arm.
        """
        record = RunRecord.load(run)
        nodes = [node for node in record.nodes if node.stage == "select"]
        if not nodes:
            raise StageError(f"{run} selected nothing", hint="run a recipe with a table [select]")
        own = [node for node in nodes if arm in node.arms]
        if not own:
            arms = [name for node in nodes for name in node.arms]
            what = f"the run {run} has no selection of an arm '{arm}'"
            raise RecipeError(what, hint=suggest(arm, arms, otherwise="there are"))
        return cls(run, record, _artifact(own[-1]))

    def table(self) -> pa.Table:
        """Return the selected rows with rank, score, group and reason, the best first."""
        return pq.read_table(self.artifact.folder / SELECTION)

    def left_out(self) -> pa.Table | None:
        """Return the rows that filters left out, or ``None`` where there were no filters."""
        path = self.artifact.folder / LEFT_OUT
        return pq.read_table(path) if path.is_file() else None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the selected rows in full, the best first."""
        path = self.artifact.folder / SELECTED
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError) as error:
            raise StageError(
                f"{path} is missing or damaged: {error}", hint="run again with --fresh select"
            ) from None

    def pool(self) -> Pool:
        """Open the pool that was selected from."""
        return Pool.open(self._input("pool").folder)

    def scores(self) -> tuple[NodeRecord, ScoreTable]:
        """Return the score that was selected by, and its table."""
        node = self._input("score")
        return node, ScoreTable.open(node.folder)

    def _input(self, role: str) -> NodeRecord:
        digest = self.artifact.details.get("inputs", {}).get(role)
        for node in self.record.nodes:
            if node.digest == digest:
                _artifact(node)
                return node
        raise StageError(f"the {role} that {self.run} selected from is not in its record")


def _artifact(node: NodeRecord) -> Artifact:
    artifact = Artifact.load(node.folder)
    if artifact is None:
        raise StageError(
            f"{node.folder}, the result of {node.key}, is gone",
            hint="run the recipe again: what is left is reused",
        )
    if damage := artifact.damage():
        raise StageError(
            f"{node.key}: {damage}", hint="run the recipe again: what is damaged is made again"
        )
    return artifact

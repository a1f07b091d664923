"""The filter ``unrendered``: rows that no model can read."""

from selectmoe_core import Job, Marks, StageError
from selectmoe_core.data import Pool
from selectmoe_core.tokens import unrendered_rows
from selectmoe_filters.config import UnrenderedConfig

REASON = "the chat format cannot render it"


class UnrenderedRows:
    """Marks rows that tokenising the pool left out; see ``UnrenderedConfig``."""

    def __init__(self, config: UnrenderedConfig) -> None:
        self.config = config

    def mark(self, pool: Pool, job: Job) -> Marks:  # noqa: ARG002  (the tokens are of that pool)
        """Return the rows that have no tokens."""
        if job.inputs.model is None:
            raise StageError("tokens need a model", hint="add model to the table, or a [train]")
        rows = unrendered_rows(job.encoded(job.models.tokenizer(job.inputs.model)))
        return Marks.left_out(rows, [REASON] * len(rows))

"""``warmup`` and ``train``: a trainer runs on a sample of the pool, or on the selection."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selectmoe_core.data.examples import Example
from selectmoe_core.data.pool import Pool, draw
from selectmoe_core.data.selection import selected_rows
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.runtime.distributed import main_first
from selectmoe_core.stages.context import Context
from selectmoe_core.store import Facts
from selectmoe_core.tokens.encoding import Encoded, encode
from selectmoe_core.tokens.tokenize import rows_named
from selectmoe_core.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class PoolRows:
    """Some rows of the pool.

    Attributes:
        pool: the pool.
        rows: positions in it, int64.
        job: gives the chat format, and the tokens of the whole pool if the trainer needs them.
        scratch: the folder for tokens of only these rows.
        whole: use the tokens of the whole pool, which a later stage needs anyway.
    """

    pool: Pool
    rows: np.ndarray
    job: Job
    scratch: Path
    whole: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Example]:
        return self.pool.take(self.rows)

    def encoded(self, tokenizer: Tokenizer) -> Encoded:
        """Return the tokens of these rows, in the same order."""
        whole = self.job.encoded  # raises if the trainer does not declare that it reads tokens
        if self.whole:
            return whole(tokenizer).take(self.rows)
        folder, chat = self.scratch / "tokens", self.job.chat
        with main_first() as first:
            if first:
                task = self.job.progress.task("tokenise", len(self))
                with task as advance, rows_named(self.pool):
                    encode(iter(self), folder, chat, tokenizer, advance)
        return Encoded.open(folder, chat)


def run(context: Context) -> Facts:
    """Train on the selection, or warm up on a sample of the pool."""
    pool = context.pool()
    ratio = context.spec.own.get("subset_ratio")
    select = context.spec.inputs.get("select")
    if select is None:
        rows = pool.sample(ratio, context.spec.seed) if ratio else np.arange(len(pool))
    else:
        rows = selected_rows(select)
        if ratio:
            count = max(1, round(ratio * len(rows)))
            rows = rows[draw(pool.ids()[rows], count, context.spec.seed)]
    examples = PoolRows(pool, rows, context.job, context.job.scratch, whole=select is None)
    model = context.spec.model_ref()
    assert model is not None
    facts = context.part.train(model, examples, context.folder / "model", context.job)
    return {"examples": len(rows), **facts}

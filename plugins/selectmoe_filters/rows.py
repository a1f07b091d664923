"""The rows of a pool in order, with a progress bar that reaches its end."""

from collections.abc import Iterator

from selectmoe_core import Example, Job
from selectmoe_core.data import Pool

BLOCK = 4096
"""Rows after which progress is shown."""


def counted(pool: Pool, job: Job, label: str) -> Iterator[tuple[int, Example]]:
    """Yield each row with its number, and show how far it is under a label."""
    with job.progress.task(label, len(pool)) as advance:
        for start in range(0, len(pool), BLOCK):
            stop = min(start + BLOCK, len(pool))
            yield from enumerate(pool.examples(start, stop), start)
            advance(stop - start)

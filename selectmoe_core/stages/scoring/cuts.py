"""How a pool is cut into shards: by work, the last ones small, for any number of processes.

A shard is what a kill can cost, and how far the bar moves at once: so it holds at most about a
minute of work. On a GPU shards are as large as that allows, since small ones fill its batches less.
The last shards are small, so that processes end at about the same time. Where the cuts are depends
on nothing that may differ when a stage is resumed, and is kept beside its scores.
"""

import json
from collections.abc import Iterator

from selectmoe_core.cost import CHARACTERS_PER_TOKEN, DEVICES, Workload, seconds
from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import ModelError
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.stages.context import Context
from selectmoe_core.store import write_json

CUTS = "shards.json"
SHARDS, LEAST, MOST = 1000, 2048, 1 << 16
"""A pool is cut into about so many shards, none of fewer or more examples than these."""
LEAST_ON_CPU = 512
"""The same for a model on a CPU: estimates say little of small ones there, and it loses nothing."""
SECONDS = {"cuda": ("h100", 60.0, 256), "cpu": ("cpu", 40.0, 16)}
"""By device: what the work is estimated for, the most seconds of a shard, and the fewest examples
that such a limit leaves in one."""
LAST = 8
"""Towards the end a shard holds this part of what is left, down to this part of a whole one."""

Cut = tuple[int, int, int]
"""A shard: its number, its first row and the row after its last."""


def cuts(rows: int, size: int, least: int | None = None) -> Iterator[Cut]:
    """Yield the shards of a pool.

    Args:
        rows: examples of the pool.
        size: examples of a shard.
        least: examples of the smallest of those at the end; left out, all are of one size.
    """
    number = start = 0
    least = size if least is None else least
    while start < rows:
        stop = min(rows, start + min(size, max(least, (rows - start) // LAST)))
        yield number, start, stop
        number, start = number + 1, stop


def shards_of(context: Context, pool: Pool) -> list[Cut]:
    """Return the shards of a stage: as they were cut when it was begun, if it was."""
    path = context.folder / CUTS
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        return list(cuts(len(pool), int(found["examples"]), found.get("least")))
    wanted = context.spec.own.get("shard_examples")
    size = int(wanted) if wanted else _size(context, pool)
    least = size if wanted else max(1, size // LAST)
    write_json(path, {"examples": size, "least": least})
    return list(cuts(len(pool), size, least))


def _size(context: Context, pool: Pool) -> int:
    """Return the examples of a shard of at most about a minute of work, as far as that is known."""
    name, most, least = SECONDS[context.spec.device.partition(":")[0]]
    on_cpu = name == "cpu" and context.component.torch
    size = min(max(len(pool) // SHARDS, LEAST_ON_CPU if on_cpu else LEAST), MOST)
    characters = sum(
        source.prompt_characters + source.response_characters for source in pool.sources.values()
    )
    length = int(context.spec.chat["max_length"])
    workload = Workload(
        examples=len(pool),
        tokens=min(characters / CHARACTERS_PER_TOKEN, len(pool) * length),
        estimated=True,
        model=_model(context),
        dtype=context.spec.dtype,
    )
    try:
        cost = context.component.cost and context.component.cost(context.config, workload)
    except (KeyError, TypeError, ValueError):  # formulas that do not know this model
        cost = None
    time = seconds(cost, DEVICES[name], context.spec.threads) if cost else None
    return min(size, max(least, int(most * len(pool) / time))) if time else size


def _model(context: Context) -> dict[str, object] | None:
    if Need.MODEL not in context.component.needs(context.config):
        return None
    model = context.job.inputs.model
    try:
        return context.job.models.config(model) if model is not None else None
    except ModelError:
        return None

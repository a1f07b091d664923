"""How a pool is cut into shards: by work, with small ones at the end.

A killed process loses its shard, and the bar moves by whole shards, so a shard holds at most about
a minute of work. On a GPU shards are as large as that allows, because small ones fill its batches
less. The last shards are small, so that processes end at about the same time. The cuts do not
depend on anything that may differ when a stage is resumed, and they are stored with its results.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from selectmoe_core.cost import CHARACTERS_PER_TOKEN, DEVICES, Workload, seconds
from selectmoe_core.data.pool import Pool
from selectmoe_core.errors import ModelError, StageError
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.stages.context import Context

CUTS = "shards.json"
SHARDS, LEAST, MOST = 1000, 2048, 1 << 16
"""The number of shards to aim for, and the fewest and most examples of a shard."""
LEAST_ON_CPU = 512
"""The fewest for a model on a CPU, where small shards cost nothing and estimates are poor."""
SECONDS = {"cuda": ("h100", 60.0, 256), "cpu": ("cpu", 40.0, 16)}
"""By device: the device of the estimate, the most seconds of a shard, and the fewest examples that
this limit allows."""
LAST = 8
"""Near the end a shard holds this part of the remaining rows, down to this part of a full one."""

Cut = tuple[int, int, int]
"""A shard: its number, its first row, and the row after its last row."""


def cuts(rows: int, size: int, least: int | None = None) -> Iterator[Cut]:
    """Yield the shards of a pool.

    Args:
        rows: examples of the pool.
        size: examples of a shard.
        least: examples of the smallest shards at the end; by default all have the same size.
    """
    number = start = 0
    least = size if least is None else least
    while start < rows:
        stop = min(rows, start + min(size, max(least, (rows - start) // LAST)))
        yield number, start, stop
        number, start = number + 1, stop


def shards_of(context: Context, pool: Pool) -> list[Cut]:
    """Return the shards of a stage; a resumed stage keeps its earlier cuts."""
    path = context.folder / CUTS
    if path.is_file():
        return list(cuts(len(pool), *recorded(path, context.spec.stage)))
    wanted = context.spec.own.get("shard_examples")
    size = int(wanted) if wanted else _size(context, pool)
    least = size if wanted else max(1, size // LAST)
    # Workers may begin at the same time: the first one decides.
    context.store.agree(path, json.dumps({"examples": size, "least": least}))
    return list(cuts(len(pool), *recorded(path, context.spec.stage)))


def recorded(path: Path, stage: str) -> tuple[int, int]:
    """Return how large the shards of a stage that was begun are, and the least of them."""
    try:
        found = json.loads(path.read_bytes())
        size, least = int(found["examples"]), int(found.get("least", found["examples"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        size = least = 0
    if min(size, least) < 1:
        raise StageError(
            f"{path} is damaged: nobody knows how the pool was cut into shards",
            hint=f"start the stage again with --fresh {stage}",
        )
    return size, least


def _size(context: Context, pool: Pool) -> int:
    """Return the examples of a shard with at most about a minute of work, as far as known."""
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
    except (KeyError, TypeError, ValueError):  # the formulas do not fit this model
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

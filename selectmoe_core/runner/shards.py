"""Single shards of a node, for a process of an executor that holds the node's part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from selectmoe_core.data.pool import Pool
from selectmoe_core.plugin.manager import load_plugins
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.runner.execute import node_context
from selectmoe_core.runner.worker import prepare
from selectmoe_core.runtime.distributed import World
from selectmoe_core.stages import embedding
from selectmoe_core.stages.context import Context
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.stages.scoring import score
from selectmoe_core.stages.scoring.elsewhere import OpenShards, opened_shards
from selectmoe_core.stages.scoring.work import Work

WORK: Mapping[str, Callable[[Context, Pool], Work[Any]]] = {
    "embed": embedding.shard_work,
    "score": score.shard_work,
}
"""What each mapped stage makes of a shard."""


@contextmanager
def open_shards(file: Path) -> Iterator[OpenShards[Any]]:
    """Open the part of a node in this process, and make its shards one by one.

    Call it before anything imports torch: it sets how many threads torch has.

    Args:
        file: the node's file, as ``ShardWork.file`` names it.
    """
    spec = replace(NodeSpec.load(file), progress="none", events=None)
    prepare(spec)
    context = node_context(spec, Registry(load_plugins(spec.disabled)), World())
    pool = context.pool()
    with opened_shards(context, pool, WORK[spec.stage](context, pool)) as shards:
        yield shards

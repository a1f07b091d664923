"""What an executor uses to run processes of stages on other hosts."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.plugin.executor import MAPPED_STAGES, ThisHost
    from selectmoe_core.runner.shards import open_shards
    from selectmoe_core.runtime.hardware import versions, visible_gpus
    from selectmoe_core.runtime.processes import bound
    from selectmoe_core.stages.scoring.cuts import Cut
    from selectmoe_core.stages.scoring.elsewhere import OpenShards, ShardMaker, ShardWork
    from selectmoe_core.stages.scoring.work import FailedShard

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.plugin.executor": "MAPPED_STAGES ThisHost",
        "selectmoe_core.runner.shards": "open_shards",
        "selectmoe_core.runtime.hardware": "versions visible_gpus",
        "selectmoe_core.runtime.processes": "bound",
        "selectmoe_core.stages.scoring.cuts": "Cut",
        "selectmoe_core.stages.scoring.elsewhere": "OpenShards ShardMaker ShardWork",
        "selectmoe_core.stages.scoring.work": "FailedShard",
    },
)

__all__ = [
    "MAPPED_STAGES",
    "Cut",
    "FailedShard",
    "OpenShards",
    "ShardMaker",
    "ShardWork",
    "ThisHost",
    "bound",
    "open_shards",
    "versions",
    "visible_gpus",
]

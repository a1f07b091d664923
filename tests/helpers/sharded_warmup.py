"""Warm-up whose weights two processes of the CPU share out (FSDP): python -m torch.distributed.run.

accelerate offers FSDP on accelerators alone; all below that choice runs on gloo as well.
"""

import json
import sys
from pathlib import Path

from accelerate.state import AcceleratorState, DistributedType, PartialState
from olmoe_stage import Stage

from selectmoe_core.models.models import ModelRef
from selectmoe_core.runtime.distributed import current_world, join, leave

OPTIONS = {"trainable": "all", "contrastive": True, "checkpoint_every": 3}


def on_the_cpu() -> None:
    """Let accelerate take the plugin for FSDP that the environment asks for."""
    start = AcceleratorState.__init__

    def started(self, *args, fsdp_plugin=None, **kwargs):
        start(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = started


def main(base: Path, folder: Path) -> None:
    on_the_cpu()
    join("cpu")
    world = current_world()
    stage = Stage(ModelRef(str(base)), folder)
    stage.tokens = folder / f"tokens-{world.rank}"
    stage.run(world=world, **OPTIONS)
    if world.main:
        (folder / "curve.json").write_text(json.dumps(stage.curve))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

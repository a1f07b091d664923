"""Which process of how many this is. Launching and collectives are accelerate's."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """This process among the processes of a launch."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process plans, selects and reports."""
        return self.rank == 0


def current_world() -> World:
    """Read the variables that accelerate, torchrun and Slurm's srun set."""
    env = os.environ
    if "WORLD_SIZE" in env:
        return World(
            int(env.get("RANK", "0")), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", "0"))
        )
    return World()

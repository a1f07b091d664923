"""The number of this process among all. Accelerate launches processes and connects them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: one of them may tokenise the pool for all meanwhile.

The launcher notices at once if a process dies; this limit does not serve that purpose.
"""


@dataclass(frozen=True)
class World:
    """The number of this process, and how many were launched."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process plans, selects and reports."""
        return self.rank == 0


def current_world() -> World:
    """Read the variables that accelerate and torchrun set for the processes they start."""
    env = os.environ
    if "WORLD_SIZE" in env:
        return World(
            int(env.get("RANK", "0")), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", "0"))
        )
    return World()


def on_one_host(world: World) -> bool:
    """Whether all processes of the launch run on this host, as far as the launcher says."""
    return world.size == 1 or os.environ.get("LOCAL_WORLD_SIZE") == str(world.size)


def join(device: str) -> None:
    """Connect to the other processes of the launch and choose this process's GPU.

    Gloo connects processes on the CPU, NCCL those on GPUs; process ``n`` of a host takes the n-th
    GPU that it can see. A single process connects to no other.
    """
    if current_world().size == 1:
        return
    from accelerate import PartialState

    PartialState(cpu=device == "cpu", timeout=PATIENCE)


def leave() -> None:
    """Disconnect from the other processes after all have finished their work."""
    if current_world().size == 1:
        return
    from accelerate import PartialState

    barrier()
    PartialState().destroy_process_group()


def shards_weights() -> bool:
    """Whether accelerate splits each weight among the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def gathers_weights() -> bool:
    """Whether accelerate saves weights that are split (FSDP) as one model."""
    return os.environ.get("FSDP_STATE_DICT_TYPE") == "FULL_STATE_DICT"


def barrier() -> None:
    """Wait until every process of the launch arrives; a single process does not wait."""
    if current_world().size == 1:
        return
    _joined().wait_for_everyone()


@contextmanager
def main_first() -> Iterator[bool]:
    """Run the block in the first process before all others; yield whether this is the first."""
    if current_world().size == 1:
        yield True
        return
    with _joined().main_process_first():
        yield current_world().main


def agreed(of_main: bool) -> bool:
    """Return the first process's value in all processes."""
    if current_world().size == 1:
        return of_main
    from accelerate.utils import broadcast_object_list

    _joined()
    return bool(broadcast_object_list([of_main])[0])


def _joined() -> "PartialState":
    import torch.distributed
    from accelerate import PartialState

    # accelerate would continue silently, each process alone.
    if not torch.distributed.is_initialized():
        raise RuntimeError(
            "this process is one of several and has not joined them: call join() first"
        )
    return PartialState()

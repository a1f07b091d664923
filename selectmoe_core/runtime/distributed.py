"""Which process of how many this is. Launching and collectives are accelerate's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(hours=12)
"""How long a process waits for its fellows: one of them may tokenise the pool for all meanwhile.

A process that died is noticed by whoever launched it, at once; this is no measure against that.
"""


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
    """Read the variables that accelerate and torchrun set for the processes they start."""
    env = os.environ
    if "WORLD_SIZE" in env:
        return World(
            int(env.get("RANK", "0")), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", "0"))
        )
    return World()


def on_one_host(world: World) -> bool:
    """Whether all processes of the launch run on this host, as far as its launcher has told."""
    return world.size == 1 or os.environ.get("LOCAL_WORLD_SIZE") == str(world.size)


def join(device: str) -> None:
    """Meet the other processes of the launch, and take the GPU that is this one's.

    Gloo connects processes on the CPU, NCCL those on GPUs; process ``n`` of a host takes the n-th
    GPU that it can see. One process alone has nobody to meet.
    """
    if current_world().size == 1:
        return
    from accelerate import PartialState

    PartialState(cpu=device == "cpu", timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes, once all have done their work."""
    if current_world().size == 1:
        return
    from accelerate import PartialState

    barrier()
    PartialState().destroy_process_group()


def shards_weights() -> bool:
    """Whether accelerate shares each weight out among the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def gathers_weights() -> bool:
    """Whether accelerate saves weights that are shared out (FSDP) as one model."""
    return os.environ.get("FSDP_STATE_DICT_TYPE") == "FULL_STATE_DICT"


def barrier() -> None:
    """Wait until every process of the launch is here; one process alone goes straight on."""
    if current_world().size == 1:
        return
    _joined().wait_for_everyone()


@contextmanager
def main_first() -> Iterator[bool]:
    """Let the first process through the block before all others; tell whether this is the first."""
    if current_world().size == 1:
        yield True
        return
    with _joined().main_process_first():
        yield current_world().main


def agreed(of_main: bool) -> bool:
    """Return what the first process says, to all of them."""
    if current_world().size == 1:
        return of_main
    from accelerate.utils import broadcast_object_list

    _joined()
    return bool(broadcast_object_list([of_main])[0])


def _joined() -> "PartialState":
    import torch.distributed
    from accelerate import PartialState

    # accelerate would go on without a word, each process by itself.
    if not torch.distributed.is_initialized():
        raise RuntimeError("this process is one of several, and has not joined them: call join()")
    return PartialState()

"""Options of the executor."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from selectmoe_core import Config


class RayConfig(Config):
    """Run the processes of stages on a Ray cluster, which may grow and shrink meanwhile.

    Shards of ``embed`` and ``score`` are made by actors that each hold the model; other stages run
    in actors that start together.
    """

    address: str | None = None
    """The cluster: ``auto`` on one of its nodes, or ``HOST:6379``. By default what RAY_ADDRESS
    says, otherwise a cluster of this host alone, which ends with the run."""
    actors: PositiveInt | None = None
    """Actors that make shards at the same time, also those that wait for a node. By default as many
    as the cluster has room for, on nodes that join it meanwhile too."""
    gpus_per_actor: Annotated[float, Field(ge=0)] | None = None
    """GPUs of each actor; with .5 two share one. By default 1 if the cluster has GPUs, else 0. Set
    it to 1 if nodes with GPUs are started only when they are asked for."""
    cpus_per_actor: PositiveFloat = 1.0
    """Cores of each actor; on the CPU also its torch threads, unless ``--threads`` is given."""
    gang_workers: PositiveInt = 1
    """Processes that warm up, train or evaluate together, each with the GPUs of an actor. They
    start at the same time; if one dies the stage ends, and the next run continues it."""
    attempts: PositiveInt = 3
    """How often a shard is tried before it counts as failed; a try on a lost node does not
    count."""
    skip_failed_shards: bool = False
    """Go on without the examples of a shard that failed: they get no score and are not selected,
    and the report counts them. Otherwise the stage ends after all other shards are made."""
    start_seconds: PositiveFloat = 600.0
    """Seconds to wait for an actor where there is none: the cluster may have to start a node."""

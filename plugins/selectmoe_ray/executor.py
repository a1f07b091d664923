"""The executor: a map over shards on a pool of actors, a gang in actors that start together."""

from collections.abc import Iterator
from contextlib import contextmanager

from selectmoe_core import NodeRun, Place, Site
from selectmoe_ray.cluster import connected, gpus_of_actor, room
from selectmoe_ray.config import RayConfig
from selectmoe_ray.gang import run_gang

MAKER = "selectmoe_ray.maker:ray_maker"


class RayExecutor:
    """Runs processes on a Ray cluster; see ``RayConfig``."""

    def __init__(self, config: RayConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, site: Site) -> Iterator["OpenRay"]:
        """Connect to the cluster, or start one of this host, until the run ends."""
        with connected(self.config.address) as address:
            yield OpenRay(self.config, site, address)


class OpenRay:
    """A connected cluster.

    Args:
        config: the executor's options.
        site: what the run asks.
        address: the cluster.
    """

    def __init__(self, config: RayConfig, site: Site, address: str) -> None:
        self.config, self.site, self.address = config, site, address
        self.gpus = gpus_of_actor(config, site.device)

    def place(self) -> Place:
        """Return device, processes and threads of the actors."""
        device = "cuda" if self.gpus else "cpu"
        threads = self.site.threads or max(1, int(self.config.cpus_per_actor))
        actors = self.config.actors or room(self.gpus, self.config.cpus_per_actor)
        text = f"{self.address}, {device}, {actors} actor{'s' * (actors > 1)}"
        return Place(device, self.config.gang_workers, threads, text)

    def map(self, run: NodeRun) -> None:
        """Let a process of this host hand out the shards to a pool of actors."""
        options = {
            "address": self.address,
            "actors": self.config.actors,
            "gpus": self.gpus,
            "cpus": self.config.cpus_per_actor,
            "attempts": self.config.attempts,
            "start_seconds": self.config.start_seconds,
        }
        run.drive(MAKER, options, self.config.skip_failed_shards)

    def gang(self, run: NodeRun) -> None:
        """Start the processes together, each in an actor with its GPUs."""
        run_gang(run, self.gpus, self.config.cpus_per_actor, self.config.start_seconds)

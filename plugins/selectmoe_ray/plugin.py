"""What this plugin offers: ``ray``."""

from typing import Any

from selectmoe_core import About, Component, Executor, hookimpl, load
from selectmoe_ray.config import RayConfig


@hookimpl
def selectmoe_executors() -> list[Component[Any, Executor]]:
    """Offer ``ray``, which needs the extra ``ray``."""
    about = About(
        meaning="shards are made by actors that come and go; a lost node loses its shards in work",
        cost="about a millisecond of the run's own process for a shard",
    )
    return [
        Component(
            "ray",
            RayConfig,
            load("selectmoe_ray.executor:RayExecutor"),
            about=about,
            requires=("ray:selectmoe[ray]",),
        )
    ]

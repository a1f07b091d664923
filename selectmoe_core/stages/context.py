"""What a stage function receives: the built part, its options and its job."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selectmoe_core.config import Config
from selectmoe_core.data.pool import Pool
from selectmoe_core.plugin.component import Component
from selectmoe_core.plugin.protocols import Job
from selectmoe_core.remote.cache import store_at
from selectmoe_core.runtime.leases import Place
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import Store

CLAIMS = "claims"
"""The folder of an artifact with the claims of its shards."""


@dataclass(frozen=True)
class Context:
    """One node about to be executed.

    Attributes:
        part: the reader, converter, ... that the component built.
        component: the component.
        config: its options.
        spec: the node.
        job: what the part may know about its run.
    """

    part: Any
    component: Component[Any, Any]
    config: Config
    spec: NodeSpec
    job: Job

    @property
    def folder(self) -> Path:
        """The artifact's folder."""
        return self.spec.folder

    @property
    def store(self) -> Store:
        """The store that holds its artifact and those it reads."""
        return store_at(self.spec.store)

    @property
    def claims(self) -> Place:
        """Where the processes that make shards of it claim them."""
        return self.store.place(self.folder / CLAIMS)

    def pool(self) -> Pool:
        """Open the pool, or the targets where the stage works on these alone."""
        return Pool.open(self.spec.inputs[self.spec.rows_of])

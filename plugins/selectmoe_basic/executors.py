"""The executor of this host: the core starts the processes, as without any executor."""

from collections.abc import Iterator
from contextlib import contextmanager

from selectmoe_basic.config import LocalConfig
from selectmoe_core import NodeRun, Place, Site


class LocalExecutor:
    """Runs processes on this host; see ``LocalConfig``."""

    def __init__(self, config: LocalConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, site: Site) -> Iterator["LocalExecutor"]:  # noqa: ARG002
        """There is nothing to connect to."""
        yield self

    def place(self) -> Place | None:
        """Return nothing: processes run here, as the command line says."""
        return None

    def map(self, run: NodeRun) -> None:
        """Let the processes claim shards."""
        run.here()

    def gang(self, run: NodeRun) -> None:
        """Start the processes together."""
        run.here()

"""The executor of this host: the core starts the processes, as without any executor."""

from collections.abc import Iterator
from contextlib import contextmanager

from selectmoe_basic.config import LocalConfig
from selectmoe_core import Site
from selectmoe_core.execution import ThisHost


class LocalExecutor:
    """Runs processes on this host; see ``LocalConfig``."""

    def __init__(self, config: LocalConfig) -> None:
        self.config = config

    @contextmanager
    def open(self, site: Site) -> Iterator[ThisHost]:  # noqa: ARG002
        """There is nothing to connect to."""
        yield ThisHost()

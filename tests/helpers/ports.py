"""Ports for processes that a test starts."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[str]:
    """Give a free port that nobody else gets while the block runs, for a process to listen at.

    Linux lets a socket listen at a port that another one holds, where both allow that and the other
    one does not listen.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield str(held.getsockname()[1])

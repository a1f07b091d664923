"""The cluster: connecting to it, and what its nodes have room for."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from selectmoe_core import StageError
from selectmoe_ray.config import RayConfig

STORE_BYTES = 80 << 20
"""Bytes of the object store of a cluster of this host alone: nothing large goes through it."""
REACH_SECONDS = 10.0
"""Seconds that the head of a cluster has to accept a connection."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Settings of Ray: report nothing to its makers; actors without a GPU see what their node sees."""


@contextmanager
def connected(address: str | None) -> Iterator[str]:
    """Connect to a cluster, or start one on this host; yield its address.

    Raises:
        StageError: there is no such cluster.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    _check_reach(address)
    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(
            address=address or "local",
            namespace="selectmoe",
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            **({} if address else own),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreached(address, error) from error
    signal.signal(signal.SIGTERM, before)  # Ray has set its own: the run would end another way
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def _check_reach(address: str | None) -> None:
    """Raise if nothing answers at ``HOST:PORT``: Ray itself would try for minutes."""
    if "://" in (address or ""):
        raise StageError(
            f"{address}: a run is started on a node of its cluster, not through Ray's client",
            hint="start it there, with the address auto or HOST:6379",
        )
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _unreached(address, error) from error


def _unreached(address: str | None, error: Exception) -> StageError:
    first = str(error).strip().partition("\n")[0]
    return StageError(
        f"cannot connect to the Ray cluster {address or 'of this host'}: {first}",
        hint="is it running? `ray status --address HOST:6379` shows it; leave out the address for "
        "a cluster of this host alone",
    )


def gpus_of_actor(config: RayConfig, wanted: str) -> float:
    """Return the GPUs of an actor.

    Args:
        config: the executor's options.
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        StageError: a GPU is asked for and the cluster has none.
    """
    if wanted == "cpu":
        return 0.0
    if config.gpus_per_actor is not None:
        return config.gpus_per_actor
    there = ray.cluster_resources().get("GPU", 0.0) > 0
    if not there and wanted != "auto":
        raise StageError(
            f"--device {wanted}: the Ray cluster has no GPU",
            hint="use --device cpu, or executor.gpus_per_actor=1 if nodes with GPUs are started "
            "when they are asked for",
        )
    return 1.0 if there else 0.0


def room(gpus: float, cpus: float) -> int:
    """Return how many actors the cluster has room for now, at least one."""
    count = 0
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            most = [there.get("CPU", 0.0) / cpus]
            most += [there.get("GPU", 0.0) / gpus] if gpus else []
            count += int(min(most))
    return max(1, count)


def lives(node: str) -> bool:
    """Return whether a node, known by its id, is still part of the cluster."""
    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())

"""What runs on the cluster: an actor that holds the part of a node and makes its shards."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import ray

from selectmoe_core import SelectMoEError
from selectmoe_core.execution import Cut, OpenShards, open_shards, versions

SAME = ("selectmoe", "torch", "transformers")
"""Packages whose versions must agree between actors: scores of different ones are a mixture."""


class Reply(NamedTuple):
    """What an actor answers; all of it is small.

    Attributes:
        error: what failed, empty where nothing did.
        hint: the error's hint.
        kernel: of a shard: which implementation made it, if that matters.
        node: of an opened actor: the id of its node.
        versions: of an opened actor: versions of the packages that scores depend on.
    """

    error: str = ""
    hint: str = ""
    kernel: str = ""
    node: str = ""
    versions: tuple[str, ...] = ()


class ShardActor:
    """Holds the part of a node in a process of its own; several threads may call ``make``."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._shards: OpenShards[Any] | None = None

    def open(self, file: str) -> Reply:
        """Open the part of the node that a file describes."""
        node = str(ray.get_runtime_context().get_node_id())
        try:
            self._shards = self._held.enter_context(open_shards(Path(file)))
        except Exception as error:
            return _failure(error)._replace(node=node)
        found = versions()
        own = tuple(f"{name} {found[name].partition('+')[0]}" for name in SAME if name in found)
        return Reply(node=node, versions=own)

    def make(self, cut: Cut) -> Reply:
        """Make a shard unless it exists."""
        assert self._shards is not None
        try:
            return Reply(kernel=self._shards.make(cut))
        except Exception as error:
            return _failure(error)

    def lives(self) -> None:
        """Answer."""

    def finish(self) -> Reply:
        """Do what remains once every shard is made."""
        assert self._shards is not None
        try:
            self._shards.finish()
        except Exception as error:
            return _failure(error)
        return Reply()

    def close(self) -> None:
        """Close the part."""
        self._held.close()


def _failure(error: Exception) -> Reply:
    logging.getLogger("selectmoe.ray").error("%s", error, exc_info=error)
    if isinstance(error, SelectMoEError):
        return Reply(str(error), error.hint)
    first = str(error).strip().partition("\n")[0]
    return Reply(f"{type(error).__name__}: {first[:300]}", "its traceback is in run.log")

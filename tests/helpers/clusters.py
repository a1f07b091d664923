"""Ray clusters of several nodes on this machine, and runs on them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from waiting import PATIENCE

STORE = 80 << 20
"""Bytes of a node's object store, the least that Ray takes."""
STARTS = 4
"""Tries to start a node: Ray gives it 30 seconds, which a busy machine does not keep."""


@dataclass
class Nodes:
    """A head without cores, and nodes of one core each."""

    cluster: Any
    workers: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, count: int = 1, cpus: int = 1) -> None:
        for _ in range(count):
            add = partial(self.cluster.add_node, num_cpus=cpus, object_store_memory=STORE)
            self.workers.append(started(add))

    def remove(self, place: int = 0) -> None:
        self.cluster.remove_node(self.workers.pop(place), allow_graceful=False)


def started(start: Callable[[], Any]) -> Any:
    """Start a node; where it takes too long, try again."""
    for _ in range(STARTS - 1):
        with suppress(Exception):
            return start()
    return start()


@contextmanager
def cluster_of(count: int, cpus: int = 1) -> Iterator[Nodes]:
    """Start a cluster that ends with the block; its nodes have the environment of this moment."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    cluster = started(partial(Cluster, initialize_head=True, head_node_args=head))
    nodes = Nodes(cluster)
    try:
        nodes.add(count, cpus)
        yield nodes
    finally:
        cluster.shutdown()


@dataclass
class Desk:
    """A project whose recipe is scored by ``marked``, and the files that say what goes wrong."""

    folder: Path
    control: Path

    def tell(self, name: str, text: str = "") -> None:
        (self.control / name).write_text(text)

    def untell(self, name: str) -> None:
        (self.control / name).unlink()

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "selectmoe_core", "run", "recipe.toml"]
        return subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: object) -> tuple[int, str]:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said

    def begun(self) -> list[tuple[int, int, int]]:
        """Return shard, process and moment of each shard that was begun, in order of time."""
        names = [path.name.split("-") for path in (self.control / "begun").glob("*")]
        found = [(int(shard), int(process), int(moment)) for shard, process, moment in names]
        return sorted(found, key=lambda one: one[2])

    def forget(self) -> None:
        for path in (self.control / "begun").glob("*"):
            path.unlink()

    def parts(self, outputs: str = "outputs") -> dict[int, Path]:
        found = self.folder.glob(f"{outputs}/store/score-*/scores/part-*.parquet")
        return {int(path.stem.removeprefix("part-")): path for path in found}

    def selected(self, outputs: str = "outputs") -> bytes:
        (path,) = self.folder.glob(f"{outputs}/store/select-*/selected_data.jsonl")
        return path.read_bytes()

    def made_twice(self, outputs: str = "outputs") -> list[int]:
        """Return the shards that were begun after they were finished."""
        ends = {number: path.stat().st_mtime_ns for number, path in self.parts(outputs).items()}
        return [number for number, _, moment in self.begun() if moment > ends[number]]


def site_on_path(site: Path) -> str:
    """Return a PYTHONPATH with a folder of plugins before what is there."""
    return os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))

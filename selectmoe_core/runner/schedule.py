"""Which node of a plan comes next: what is ready, and what another run is not making already."""

from collections.abc import Callable
from functools import cache

from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.store import Store

LONG = 3
"""Nodes that at least so many others wait for, one after the other: what makes a selection."""


class Schedule:
    """The nodes of a plan, each given out once everything that it reads is finished.

    Args:
        plan: the plan.
        longest_first: give out what makes selections before the rest, the longest way to go
            first, so that several at the same time end soon. Trainings and evaluations keep the
            plan's order, so that an interrupted run leaves whole arms.
    """

    def __init__(self, plan: Plan, *, longest_first: bool) -> None:
        self._plan = plan
        nodes = list(plan.nodes.values())
        if longest_first:
            way = _ways(plan)
            nodes.sort(key=lambda node: -way(node.key) if way(node.key) >= LONG else 0)
        self._waiting = {node.key: node for node in nodes}
        self._finished: set[str] = set()
        self._making: set[tuple[str, str | None]] = set()

    @property
    def waiting(self) -> bool:
        """Whether there are nodes that were not given out."""
        return bool(self._waiting)

    def ready(self) -> list[Node]:
        """Return the nodes that can be executed now, the next one first.

        Two arms may share a node under different keys: the second waits for the first.
        """
        return [
            node
            for node in self._waiting.values()
            if self._finished.issuperset(node.inputs.values())
            and (node.stage, node.digest) not in self._making
        ]

    def start(self, node: Node) -> None:
        """Give out a node."""
        del self._waiting[node.key]
        self._making.add((node.stage, node.digest))

    def finish(self, node: Node) -> None:
        """Let what reads a node become ready."""
        self._making.discard((node.stage, node.digest))
        self._finished.add(node.key)


def _ways(plan: Plan) -> Callable[[str], int]:
    """Return a function from a node's key to how many nodes at most follow one another after it."""
    readers: dict[str, list[str]] = {key: [] for key in plan.nodes}
    for node in plan.nodes.values():
        for key in node.inputs.values():
            readers[key].append(node.key)

    @cache
    def way(key: str) -> int:
        return max((1 + way(reader) for reader in readers[key]), default=0)

    return way


def maker(store: Store, stage: str, digest: str) -> str:
    """Return which process makes an artifact at this moment; nothing where none does."""
    from filelock import FileLock, Timeout

    path = store.lock_file(stage, digest)
    if not path.exists():
        return ""
    try:
        with FileLock(path, timeout=0):
            return ""
    except Timeout:
        pass
    try:
        return path.with_suffix(".owner").read_text(encoding="utf-8")
    except OSError:  # it has just begun, or has just ended
        return "unknown process"

"""Runs on an object store: what a run reads is brought here before it is read."""

import logging
from collections.abc import Callable
from pathlib import Path

from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.remote.cache import HEAVY, address_of, publish_run
from selectmoe_core.remote.store import DamagedError

__all__ = ["bring_for_report", "bring_inputs", "publish_run", "say_place", "without_damage"]

log = logging.getLogger("selectmoe.run")


def say_place(outputs: Path, say: Callable[[str], None]) -> None:
    """Say where the outputs are, and where this host keeps what it has of them."""
    url = address_of(outputs)
    if url is not None:
        say(f"outputs: {url} (cache: {outputs})")
        log.info("outputs: %s, cache: %s", url, outputs)


def bring_inputs(plan: Plan, node: Node) -> None:
    """Bring what a node reads.

    Raises:
        DamagedError: it is not as it was written.
    """
    for above in plan.above(node):
        if above.digest is not None:
            plan.store.fetch(above.stage, above.digest)


def without_damage(
    plan: Plan, missing: Callable[[], list[Node]], say: Callable[[str], None]
) -> list[Node]:
    """Return the nodes to make, after what they and the report read has been brought.

    What turns out to be damaged counts as not made, so that it is among the nodes to make. What is
    made here and not published, because an earlier run was killed, is published.
    """
    say_place(plan.store.root.parent, say)
    for node in plan.nodes.values():
        if node.digest is not None:
            plan.store.publish(node.stage, node.digest)
    while True:
        nodes = missing()
        try:
            for node in nodes:
                bring_inputs(plan, node)
            bring_for_report(plan)
        except DamagedError as error:
            say(f"warning: {error}; it is made again where it is needed")
            continue
        return nodes


def bring_for_report(plan: Plan) -> None:
    """Bring what reports read of all artifacts: everything but models."""
    for node in plan.nodes.values():
        if node.digest is not None:
            plan.store.fetch(node.stage, node.digest, without=HEAVY)

"""The nodes of a plan, each bound and named by its digest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selectmoe_core.config import Config
from selectmoe_core.errors import RecipeError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plugin.component import SHARED_STAGES
from selectmoe_core.plugin.registry import Entry
from selectmoe_core.recipe.recipe import Recipe, StageOptions, StageTable
from selectmoe_core.store import Store

SELECTED, BASE, RANDOM = "selected", "base", "random"
"""The arms of a run: the recipe's own, the untouched target, and a random selection."""
TUNED, ADAPTER = "tuned", "adapter"
"""The recipe's own arm where nothing is selected: trained on given data, or a given adapter."""


@dataclass(frozen=True)
class Node:
    """One step of a plan.

    Attributes:
        key: names it within the plan: ``score``, ``score:ifd``, ``train@random``.
        stage: its stage.
        entry: the component that executes it.
        config: the component's options.
        own: the stage's own options.
        inputs: the keys of the nodes it reads, by role.
        model: the model it starts from, if that is not the output of a node.
        seed: its seed.
        arms: the arms it belongs to.
        where: the table of the recipe that it comes from, for messages: ``[score.ifd]``.
        digest: covers everything that can change its result; ``None`` until large files are hashed.
    """

    key: str
    stage: str
    entry: Entry
    config: Config
    own: StageOptions
    inputs: Mapping[str, str]
    model: ModelRef | None
    seed: int
    arms: tuple[str, ...]
    where: str
    digest: str | None = None

    @property
    def uses_torch(self) -> bool:
        """Whether it runs in a child process."""
        return bool(self.entry.component.torch)

    @property
    def rows_of(self) -> str:
        """The node whose rows it works on: the pool, or the targets alone."""
        return "targets" if "targets" in self.inputs and "pool" not in self.inputs else "pool"

    @property
    def shared(self) -> bool:
        """Whether several processes can execute it together."""
        alone = self.entry.component.one_process or not self.uses_torch
        return self.stage in SHARED_STAGES and not alone


@dataclass(frozen=True)
class Step:
    """A node to add to a plan.

    Attributes:
        key: names it within the plan.
        table: the table of its component.
        inputs: the keys of the nodes it reads, by role.
        model: the model it reads, if any.
        config: options in place of those of the table.
    """

    key: str
    table: StageTable
    inputs: Mapping[str, str]
    model: ModelRef | None = None
    config: Config | None = None


@dataclass(frozen=True)
class Plan:
    """The nodes of a run, in an order in which they can be executed.

    Attributes:
        recipe: the recipe.
        nodes: the nodes by key.
        store: holds their artifacts.
        not_needed: stages of the recipe that nothing wanted needs, with the reason.
        unseen: what a node reads that no digest covers, by the node's key: it is never reused.
    """

    recipe: Recipe
    nodes: Mapping[str, Node]
    store: Store
    not_needed: Mapping[str, str] = field(default_factory=dict)
    unseen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def folder(self, node: Node) -> Path:
        """Return the folder of a node's artifact."""
        if node.digest is None:
            raise RecipeError(f"{node.key}: its inputs are not hashed yet")
        return self.store.folder(node.stage, node.digest)

    def cached(self, node: Node) -> bool:
        """Return whether a node is done already."""
        return node.digest is not None and self.store.find(node.stage, node.digest) is not None

    def damaged(self) -> Iterator[tuple[Node, str]]:
        """Yield the nodes that were done and whose files are damaged, and what is wrong."""
        for node in self.nodes.values():
            if node.digest and (damage := self.store.damage(node.stage, node.digest)):
                yield node, damage

    def never_reused(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of nodes that are made again in every run, each with the reason."""
        for key, found in self.unseen.items():
            if found:
                more = f" and {len(found) - 2} more" if len(found) > 2 else ""
                yield key, f"a change of {' and '.join(found[:2])}{more} would not be noticed"

    def remarks(self) -> Iterator[str]:
        """Yield what a user should know before the plan is executed."""
        for node, damage in self.damaged():
            yield f"warning: {node.key}: {damage}; it is made again where it is needed"
        for key, why in self.never_reused():
            yield f"{key} is made in every run and never reused: {why}"

    def skips(self, node: Node) -> bool:
        """Return whether rows that a node cannot use are left out, as its reader's rejects are."""
        rows = self.nodes.get(node.inputs.get(node.rows_of, ""))
        return rows is not None and getattr(rows.own, "on_reject", "") == "skip"

    def origin(self, node: Node) -> ModelRef | None:
        """Return the model that a node's model is made from, through the nodes between."""
        while node.model is None and "model" in node.inputs:
            node = self.nodes[node.inputs["model"]]
        return node.model

    def trained_from(self, node: Node) -> ModelRef | None:
        """Return the model that a node's model is, or of which it will be a training.

        It has the same architecture; ``None`` if there is a conversion between.
        """
        while node.model is None and "model" in node.inputs:
            node = self.nodes[node.inputs["model"]]
            if node.stage == "convert":
                return None
        return node.model

    def above(self, node: Node) -> Iterator[Node]:
        """Yield the nodes that a node reads."""
        for key in node.inputs.values():
            yield self.nodes[key]

"""The plan of an audit by labels: the recipe's nodes up to its scores, on the labelled rows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selectmoe_core.audit.planning import audited, move, needed, reads_warmup
from selectmoe_core.config import parse
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.digests import Digester, installed_code
from selectmoe_core.plan.given import ANY
from selectmoe_core.plan.node import SELECTED, Node, Plan
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import Recipe, StageOptions
from selectmoe_core.stages.code import roots_of
from selectmoe_core.store import FileHashes

STAGE = "labelled-pool"
WHERE = "--labelled"
"""What gives the rows, for messages."""
CODE = ("selectmoe_core.audit.labelled.labels", "")


@dataclass(frozen=True)
class LabelledPlan:
    """What an audit by labels will do.

    Attributes:
        plan: pool, conversion, warm-up, the labelled rows, the scores on them.
        file: the labelled rows.
        column: the column of the labels.
        warmed: whether each score reads the warm-up, by the key of its node.
    """

    plan: Plan
    file: Path
    column: str
    warmed: Mapping[str, bool]


def plan_labelled(
    recipe: Recipe,
    registry: Registry,
    outputs: Path,
    file: Path,
    column: str,
    only: Sequence[str] = (),
) -> LabelledPlan:
    """Return what an audit of a recipe's scores by a user's labels will do.

    Args:
        recipe: the recipe.
        registry: the components of the installed plugins.
        outputs: the folder of all outputs.
        file: the labelled rows.
        column: the column of the labels.
        only: the scores to audit, by name; all by default.

    Raises:
        RecipeError: the recipe is wrong, a scorer is unknown, or there is no score.
    """
    recipe = audited(recipe, registry, only)
    plan = make_plan(recipe, registry, outputs, until="score", fetch=True)
    scores = [node for node in plan.nodes.values() if node.stage == "score"]
    scores = [node for node in scores if SELECTED in node.arms]
    nodes: dict[str, Node] = {}
    for key, node in plan.nodes.items():
        if node.stage == "warmup":
            # A mistake in the labels must not come to light after hours of training.
            nodes[STAGE] = _pool_node(plan, registry, file, column)
        if node.stage != "score":
            nodes[key] = node
    if STAGE not in nodes:
        nodes[STAGE] = _pool_node(plan, registry, file, column)
    digester = Digester(recipe, registry, FileHashes(plan.store.root / "hashes.json"), fetch=False)
    move(nodes, plan, scores, digester, STAGE)
    warmed = {node.key: reads_warmup(plan, node) for node in scores}
    return LabelledPlan(replace(plan, nodes=needed(nodes)), file, column, warmed)


def _pool_node(plan: Plan, registry: Registry, file: Path, column: str) -> Node:
    reader = next(iter(registry.readers_of([file.name])), ANY)
    entry = registry.get(Kind.READER, reader, where=WHERE)
    if not entry.component.pairs:
        raise RecipeError(
            f"{WHERE}: the reader {reader} cannot read pairs", hint="enable the plugin 'readers'"
        )
    options = {"path": str(file), "columns": {"label": column}}
    config = parse(entry.component.config, options, where=WHERE)
    code = installed_code(registry, plan.store.root / "hashes.json")
    content = [
        FileHashes(plan.store.root / "hashes.json").of_tree(file),
        reader,
        column,
        code.digest([CODE, *roots_of(entry.component.build)]),
    ]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    own = StageOptions(use=reader)
    return Node(STAGE, STAGE, entry, config, own, {}, None, 0, (SELECTED,), WHERE, digest)

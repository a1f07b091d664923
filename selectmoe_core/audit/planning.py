"""The plan of an audit: the recipe's nodes up to its scores, which read a damaged pool."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selectmoe_core.config import Config, suggest
from selectmoe_core.data.corruption import Damage
from selectmoe_core.errors import RecipeError
from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.digests import Digester, installed_code
from selectmoe_core.plan.node import SELECTED, Node, Plan
from selectmoe_core.plan.plan import make_plan
from selectmoe_core.plugin.component import Component, Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.recipe import Recipe, ScoreOptions, StageOptions, StageTable
from selectmoe_core.stages.code import roots_of
from selectmoe_core.store import FileHashes

STAGE = "audit-pool"
DEFAULT_FRACTION = 0.1
PLANTING = ("selectmoe_core.audit.planting", "")
"""The code that decides which rows are damaged."""


class PlantConfig(Config):
    """Which rows of the pool are damaged, and how."""

    sample: int
    """Number of rows to draw."""
    kinds: tuple[str, ...]
    """The kinds of damage."""
    excluded_ratio: float | None
    """The share of the pool that warm-up uses; these rows are left out."""
    excluded_seed: int
    """The seed with which warm-up draws them."""


@dataclass(frozen=True)
class AuditPlan:
    """What an audit will do.

    Attributes:
        plan: pool, conversion, warm-up, the pool with planted damage, the scores on it.
        damages: the kinds to plant, by name.
        shown: the kinds that were used to make each score, by the key of its node.
        originals: the digest of each score on the recipe's own pool, by the key of its node.
        fraction: the share of best rows to examine; ``None`` if it depends on the pool's size.
        kept: the number of rows that ``[select]`` keeps, where it keeps a number of them.
        blended: the keys of the nodes whose scores a blend is fitted to; none unless asked for.
    """

    plan: Plan
    damages: Mapping[str, Damage]
    shown: Mapping[str, frozenset[str]]
    originals: Mapping[str, str]
    fraction: float | None
    kept: int | None
    blended: tuple[str, ...] = ()

    def share(self, pool: int) -> float:
        """Return the share of best rows to examine, for a pool of this many rows."""
        if self.fraction is not None:
            return self.fraction
        return min(1.0, self.kept / pool) if self.kept else DEFAULT_FRACTION


def plan_audit(
    recipe: Recipe,
    registry: Registry,
    outputs: Path,
    only: Sequence[str] = (),
    *,
    fit_blend: bool = False,
) -> AuditPlan:
    """Return what an audit of a recipe's scores will do.

    Args:
        recipe: the recipe.
        registry: the components of the installed plugins.
        outputs: the folder of all outputs.
        only: the scores to audit, by name; all by default.
        fit_blend: learn the weights of a blend from what is planted.

    Raises:
        RecipeError: the recipe is wrong, a kind of damage or a scorer is unknown, there is no
            score, the warm-up uses the whole pool and leaves no row to damage, or there is nothing
            to fit a blend to.
    """
    damages = _chosen(registry, recipe.audit.kinds)
    recipe = audited(recipe, registry, only)
    plan = make_plan(recipe, registry, outputs, until="score", fetch=True)
    scores = [node for node in plan.nodes.values() if node.stage == "score"]
    scores = [node for node in scores if SELECTED in node.arms]
    shown = _shown(plan, scores, damages)
    plant = _plant_node(
        plan, registry, damages, after_warmup=any(reads_warmup(plan, node) for node in scores)
    )
    nodes = {key: node for key, node in plan.nodes.items() if node.stage != "score"}
    nodes[STAGE] = plant
    hashes = FileHashes(plan.store.root / "hashes.json")
    digester = Digester(recipe, registry, hashes, fetch=False)
    move(nodes, plan, scores, digester, STAGE)
    fraction, kept = _selects(recipe, registry)
    return AuditPlan(
        replace(plan, nodes=needed(nodes)),
        damages,
        shown,
        {node.key: node.digest or "" for node in scores},
        fraction,
        kept,
        _blended(scores, shown, damages) if fit_blend else (),
    )


def _blended(
    scores: Iterable[Node], shown: Mapping[str, frozenset[str]], damages: Mapping[str, Damage]
) -> tuple[str, ...]:
    """Return the nodes of the scores that a blend can add, those that are no blends."""
    keys = tuple(
        node.key for node in scores if Need.SCORES not in node.entry.component.needs(node.config)
    )
    if len(keys) < 2:
        raise RecipeError(
            "--fit-blend needs two or more scores, and a blend is none of them",
            hint="name them: --score router --score ifd, or add a table [score.NAME]",
        )
    if all(any(kind in shown[key] for key in keys) for kind in damages):
        raise RecipeError(
            "--fit-blend: warm-up was shown every kind of damage that is planted",
            hint="plant kinds that it was not shown (--kinds), or leave some out of warm-up",
        )
    return keys


def audited(recipe: Recipe, registry: Registry, only: Sequence[str]) -> Recipe:
    """Return the recipe with the scores to audit, each with a name.

    Args:
        recipe: the recipe.
        registry: the components of the installed plugins.
        only: the scores that the user named: one of the recipe's own by its name, or a scorer,
            with its default options. Without any, the recipe's own and those of ``[audit]``.
    """
    if not only:
        return _with_scores(recipe, recipe.audit.scores)
    own = {name or table.own.use for name, table in recipe.scores.items()}
    named = _with_scores(recipe, dict.fromkeys(use for use in only if use not in own))
    binder, wanted, stack = Binder(named, registry), set[str](), list(only)
    while stack:
        if (name := stack.pop()) in named.scores and name not in wanted:
            wanted.add(name)
            stack.extend(binder.score_names(named.scores[name]))
    scores = {name: table for name, table in named.scores.items() if name in wanted}
    tables = {name: named.resolved["score"][name] for name in scores}
    return replace(named, scores=scores, resolved={**named.resolved, "score": tables})


def _with_scores(recipe: Recipe, more: Iterable[str]) -> Recipe:
    """Return the recipe with a name for every score, and with further scorers."""
    tables: dict[str, StageTable] = {}
    for name, table in recipe.scores.items():
        named = name or table.own.use
        tables[named] = replace(table, name=named)
    for use in more:
        name = use if use not in tables else f"{use}-default"
        own = ScoreOptions(use=use)
        tables[name] = StageTable(f"--score {use}", "score", name, own, {}, {})
    if not tables:
        raise RecipeError("there is no score to audit", hint="add [score], or use --score NAME")
    resolved: dict[str, Any] = {**recipe.resolved}
    resolved["score"] = {
        name: {**table.options, **table.own.model_dump(exclude_unset=True, exclude_none=True)}
        for name, table in tables.items()
    }
    return replace(recipe, scores=tables, resolved=resolved)


def _chosen(registry: Registry, wanted: Sequence[str]) -> dict[str, Damage]:
    known = registry.damages
    if not known:
        raise RecipeError(
            "no plugin offers a kind of damage to plant", hint="enable the plugin 'damage'"
        )
    wanted = [name if name in known else name.replace(" ", "_") for name in wanted]
    for name in wanted:
        if name not in known:
            raise RecipeError(
                f"there is no kind of damage named '{name}'",
                hint=suggest(name, known, otherwise="the kinds"),
            )
    return {name: known[name] for name in sorted(set(wanted) or known)}


def reads_warmup(plan: Plan, node: Node) -> bool:
    """Return whether a node reads the warm-up, directly or through other nodes."""
    return any(above.stage == "warmup" or reads_warmup(plan, above) for above in plan.above(node))


def _shown(
    plan: Plan, scores: Iterable[Node], damages: Mapping[str, Damage]
) -> dict[str, frozenset[str]]:
    warmup = plan.nodes.get("warmup")
    kinds: frozenset[str] = frozenset()
    pairs = plan.nodes.get("pairs")
    copies = pairs is None or getattr(pairs.own, "share", None) != 1
    if warmup is not None and copies and warmup.entry.component.damages is not None:
        named = warmup.entry.component.damages(warmup.config)
        drawn = [name for name, damage in damages.items() if damage.rate > 0]
        kinds = frozenset(drawn if named is None else named)
    nothing: frozenset[str] = frozenset()
    return {node.key: kinds if reads_warmup(plan, node) else nothing for node in scores}


def _plant_node(
    plan: Plan,
    registry: Registry,
    damages: Mapping[str, Damage],
    *,
    after_warmup: bool,
) -> Node:
    warmup = plan.nodes["warmup"] if after_warmup else None
    if warmup is not None and (warmup.own.subset_ratio or 1.0) >= 1.0:
        raise RecipeError(
            "[warmup] uses the whole pool, so no row is left to plant damage in",
            hint="let it use a part of the pool: warmup.subset_ratio=0.5",
        )
    config = PlantConfig(
        sample=plan.recipe.audit.sample,
        kinds=tuple(damages),
        excluded_ratio=warmup.own.subset_ratio if warmup else None,
        excluded_seed=warmup.seed if warmup else 0,
    )
    pool, seed = plan.nodes["pool"], plan.recipe.head.seed
    code = installed_code(registry, plan.store.root / "hashes.json")
    content = [
        pool.digest,
        config.model_dump(mode="json"),
        seed,
        code.digest([PLANTING]),
        [code.digest(roots_of(damage.apply)) for damage in damages.values()],
    ]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    component: Component[PlantConfig, None] = Component(STAGE, PlantConfig, lambda _: None)
    return Node(
        key=STAGE,
        stage=STAGE,
        entry=Entry(Kind.READER, component, "audit"),
        config=config,
        own=StageOptions(use=STAGE),
        inputs={"pool": "pool"},
        model=None,
        seed=seed,
        arms=(SELECTED,),
        where="[audit]",
        digest=digest,
    )


def move(
    nodes: dict[str, Node],
    plan: Plan,
    scores: Iterable[Node],
    digester: Digester,
    pool: str,
) -> None:
    """Let the scores of a plan, and the vectors that they read, read another pool.

    Args:
        nodes: all nodes, the other pool's among them; the moved ones are put behind it.
        plan: the plan.
        scores: its scores.
        digester: names the nodes.
        pool: the key of the other pool's node.
    """
    vectors = [node for node in plan.nodes.values() if node.stage == "embed"]
    for node in vectors:
        nodes.pop(node.key)  # they come after the other pool
    for node in (*vectors, *scores):
        nodes[node.key] = _moved(node, nodes, digester, pool)


def _moved(node: Node, nodes: Mapping[str, Node], digester: Digester, pool: str) -> Node:
    """Return a node for another pool; rows without a score are counted, not an error."""
    inputs = {role: pool if key == "pool" else key for role, key in node.inputs.items()}
    own = node.own.model_copy(update={"max_skipped": 1.0} if node.stage == "score" else {})
    other = replace(node, inputs=inputs, own=own)
    digests = {role: nodes[key].digest for role, key in inputs.items()}
    return replace(other, digest=digester.of(other, digests))


def needed(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Leave out nodes that no score reads."""
    wanted: set[str] = set()
    stack = [key for key, node in nodes.items() if node.stage == "score"]
    while stack:
        key = stack.pop()
        if key not in wanted:
            wanted.add(key)
            stack.extend(nodes[key].inputs.values())
    return {key: node for key, node in nodes.items() if key in wanted}


def _selects(recipe: Recipe, registry: Registry) -> tuple[float | None, int | None]:
    """Return the share, or otherwise the number of rows, that the recipe's selector keeps."""
    if recipe.audit.fraction is not None:
        return recipe.audit.fraction, None
    table = recipe.tables.get("select")
    bound = Binder(recipe, registry).bind(table) if table else None
    if bound is None:
        return None, None
    fraction, count = (getattr(bound[1], name, None) for name in ("fraction", "k"))
    return (float(fraction), None) if fraction else (None, int(count) if count else None)

"""A plan: what a recipe makes, each node bound, checked and named by its digest, without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from selectmoe_core.errors import DataError, ModelError, Problem, RecipeError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.paths import STORE
from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.default_filters import with_default_filters
from selectmoe_core.plan.digests import Digester, unseen
from selectmoe_core.plan.executor import executor_problems
from selectmoe_core.plan.given import with_given_data
from selectmoe_core.plan.graph import Graph
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plan.trackers import tracker_problems
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import Recipe
from selectmoe_core.remote.cache import store_at
from selectmoe_core.stages.code import Code
from selectmoe_core.store import FileHashes


def make_plan(
    recipe: Recipe,
    registry: Registry,
    outputs: Path,
    *,
    until: str | None = None,
    hash_limit: int | None = None,
    fetch: bool = False,
    code: Code | None = None,
) -> Plan:
    """Bind every stage that something wanted needs, and name it by its digest.

    Args:
        recipe: the recipe.
        registry: the components of the installed plugins.
        outputs: the folder of all outputs.
        until: the last wanted stage.
        hash_limit: do not hash unknown files larger than this many bytes; ``None`` hashes all.
        fetch: download missing hub models: until then a digest can only hold their name.
        code: the reader of code, where several plans share one.

    Raises:
        RecipeError: names all mistakes of the recipe.
    """
    store = store_at(outputs / STORE)
    hashes = FileHashes(store.root / "hashes.json", hash_limit)
    binder = Binder(recipe, registry)
    recipe, without = with_default_filters(recipe, binder, until)
    binder.recipe = recipe
    graph = Graph(recipe, binder, until)
    graph.build()
    found = (
        *recipe.problems,
        *binder.problems,
        *_model_problems(graph.nodes, registry),
        *_chat_problems(recipe),
        *tracker_problems(recipe, registry),
        *executor_problems(recipe, registry),
    )
    if problems := tuple(dict.fromkeys(found)):
        raise RecipeError.of(problems)
    digester = Digester(recipe, registry, hashes, fetch=fetch, code=code)
    nodes: dict[str, Node] = {}
    once: dict[str, tuple[str, ...]] = {}
    for key, node in graph.nodes.items():
        inputs = {role: nodes[source].digest for role, source in node.inputs.items()}
        once[key] = tuple(unseen(node))
        nodes[key] = replace(node, digest=digester.of(node, inputs, once[key]))
    hashes.save()
    digester.code.save()
    resolved = binder.resolved()
    with_given_data(resolved, graph.recipe.tables.get("train"), binder)
    recipe = replace(graph.recipe, resolved=resolved)
    return Plan(recipe, nodes, store, {**graph.not_needed, **without}, once)


def _chat_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the mistakes of the chat format's template file."""
    from selectmoe_core.tokens.chat import ChatFormat

    try:
        ChatFormat.load(recipe.chat)
    except DataError as error:
        yield Problem("", str(error), error.hint)


def _model_problems(nodes: Mapping[str, Node], registry: Registry) -> Iterator[Problem]:
    """Yield a problem for each missing model that is named by path or bundled name."""
    checked: set[ModelRef] = set()
    for node in nodes.values():
        if node.model is not None and node.model not in checked:
            checked.add(node.model)
            try:
                registry.models.check_place(node.model)
            except ModelError as error:
                yield Problem(node.where, str(error), error.hint)

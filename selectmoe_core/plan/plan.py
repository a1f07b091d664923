"""A plan: a graph of nodes, each bound, checked and named by its digest, all without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from selectmoe_core.config import Config, suggest
from selectmoe_core.errors import DataError, ModelError, Problem, RecipeError
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.digests import Digester
from selectmoe_core.plugin.component import SHARED_STAGES, Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.plugin.registry import Entry, Registry
from selectmoe_core.recipe.comparison import RUN_BASELINES
from selectmoe_core.recipe.recipe import STAGES, Recipe, SelectOptions, StageOptions, StageTable
from selectmoe_core.store import FileHashes, Store

SELECTED, BASE, RANDOM = "selected", "base", "random"
"""The arms of a run: the recipe's own, the untouched target, and a random selection."""


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
    digest: str | None = None

    @property
    def uses_torch(self) -> bool:
        """Whether it runs in a child process."""
        return bool(self.entry.component.torch)

    @property
    def shared(self) -> bool:
        """Whether several processes can execute it together."""
        alone = self.entry.component.one_process or not self.uses_torch
        return self.stage in SHARED_STAGES and not alone


@dataclass(frozen=True)
class Plan:
    """The nodes of a run, in an order in which they can be executed.

    Attributes:
        recipe: the recipe.
        nodes: the nodes by key.
        store: holds their artifacts.
        not_needed: stages of the recipe that nothing wanted needs, with the reason.
    """

    recipe: Recipe
    nodes: Mapping[str, Node]
    store: Store
    not_needed: Mapping[str, str] = field(default_factory=dict)

    def folder(self, node: Node) -> Path:
        """Return the folder of a node's artifact."""
        if node.digest is None:
            raise RecipeError(f"{node.key}: its inputs are not hashed yet")
        return self.store.folder(node.stage, node.digest)

    def cached(self, node: Node) -> bool:
        """Return whether a node is done already."""
        return node.digest is not None and self.store.find(node.stage, node.digest) is not None

    def origin(self, node: Node) -> ModelRef | None:
        """Return the model that a node's model is made from, through the nodes between."""
        while node.model is None and "model" in node.inputs:
            node = self.nodes[node.inputs["model"]]
        return node.model

    def above(self, node: Node) -> Iterator[Node]:
        """Yield the nodes that a node reads."""
        for key in node.inputs.values():
            yield self.nodes[key]


def make_plan(
    recipe: Recipe,
    registry: Registry,
    outputs: Path,
    *,
    until: str | None = None,
    hash_limit: int | None = None,
    fetch: bool = False,
) -> Plan:
    """Bind every stage that something wanted needs, and name it by its digest.

    Args:
        recipe: the recipe.
        registry: the components of the installed plugins.
        outputs: the folder of all outputs.
        until: the last wanted stage.
        hash_limit: do not hash unknown files larger than this many bytes; ``None`` hashes all.
        fetch: download missing hub models: until then a digest can only hold their name.

    Raises:
        RecipeError: names all mistakes of the recipe.
    """
    store = Store(outputs / "store")
    hashes = FileHashes(store.root / "hashes.json", hash_limit)
    binder = Binder(recipe, registry)
    builder = _Builder(recipe, binder, until)
    builder.build()
    found = (
        *recipe.problems,
        *binder.problems,
        *_model_problems(builder.nodes, registry),
        *_chat_problems(recipe),
    )
    if problems := tuple(dict.fromkeys(found)):
        raise RecipeError.of(problems)
    digester = Digester(recipe, registry, hashes, fetch=fetch)
    nodes: dict[str, Node] = {}
    for key, node in builder.nodes.items():
        inputs = {role: nodes[source].digest for role, source in node.inputs.items()}
        nodes[key] = replace(node, digest=digester.of(node, inputs))
    hashes.save()
    digester.code.save()
    return Plan(replace(recipe, resolved=binder.resolved()), nodes, store, builder.not_needed)


class _Builder:
    """Decides which nodes there are and what each reads."""

    def __init__(self, recipe: Recipe, binder: Binder, until: str | None) -> None:
        self.recipe = recipe
        self.binder = binder
        self.last = STAGES.index(until) if until else len(STAGES) - 1
        self.nodes: dict[str, Node] = {}
        self.not_needed: dict[str, str] = {}

    def build(self) -> None:
        # All tables first, so that a mistake in one does not hide those of later stages.
        for table in (*self.recipe.tables.values(), *self.recipe.scores.values()):
            if self._wants(table.stage):
                self.binder.bind(table)
        self._check_present()
        if self._wants("pool") and "pool" in self.recipe.tables:
            self._add("pool", self.recipe.tables["pool"], {}, SELECTED)
        self._prepare_selector()
        self._scores()
        if self._wants("select") and "select" in self.recipe.tables:
            self._select(self.recipe.tables["select"])
        self._train_and_evaluate(SELECTED)
        for baseline in self.recipe.compare.baselines:
            if baseline in RUN_BASELINES:
                self._baseline(baseline)
            else:
                self.not_needed[f"baseline {baseline}"] = "selectmoe compare makes it, run does not"
        self._drop_unread()

    def _wants(self, stage: str) -> bool:
        return STAGES.index(stage) <= self.last

    def _check_present(self) -> None:
        tables = set(self.recipe.resolved)
        for stage, needed in (("select", "score"), ("train", "select"), ("warmup", "convert")):
            if stage in tables and needed not in tables:
                # Warm-up may also start from a model of its own.
                warmup = self.recipe.tables.get("warmup")
                if stage == "warmup" and (warmup is None or warmup.own.model):
                    continue
                self.binder.problem(f"[{stage}]", f"needs a table [{needed}]", f"add [{needed}]")
        if self.recipe.compare.baselines and "evaluate" not in tables:
            self.binder.problem("[compare]", "baselines need [evaluate]", "add [evaluate]")

    def _prepare_selector(self) -> None:
        for stage in ("convert", "warmup"):
            table = self.recipe.tables.get(stage)
            if table is None or not self._wants(stage):
                continue
            inputs = {"model": "convert", "pool": "pool"} if stage == "warmup" else {}
            if table.own.model:
                inputs.pop("model", None)
            self._add(stage, table, inputs, SELECTED)

    def _scores(self) -> None:
        if not self._wants("score"):
            return
        # Scores that read other scores come last.
        ordered = sorted(self.recipe.scores.values(), key=self.binder.reads_scores)
        for table in ordered:
            key = f"score:{table.name}" if table.name else "score"
            self._add(key, table, self._score_inputs(table), SELECTED)

    def _score_inputs(self, table: StageTable) -> dict[str, str]:
        needs = self.binder.needs(table, Kind.SCORER)
        inputs = {"pool": "pool"} if "pool" in self.nodes else {}
        if Need.MODEL in needs and not table.own.model:
            above = [stage for stage in ("warmup", "convert") if stage in self.nodes]
            if above:
                inputs["model"] = above[0]
            else:
                self.binder.problem(
                    table.where,
                    f"{table.own.use} needs a model",
                    f'add model = "..." to {table.where}, or the tables [convert] and [warmup]',
                )
        for name in self.binder.score_names(table):
            if f"score:{name}" in self.nodes:
                inputs[f"score:{name}"] = f"score:{name}"
            else:
                names = [other for other in self.recipe.scores if other != table.name]
                self.binder.problem(
                    table.where, f"there is no [score.{name}]", suggest(name, names)
                )
        return inputs

    def _select(self, table: StageTable) -> None:
        own = table.own
        assert isinstance(own, SelectOptions)
        scores = [key for key in self.nodes if key.startswith("score")]
        chosen = f"score:{own.score}" if own.score else "score"
        if len(scores) == 1 and not own.score:
            chosen = scores[0]
        if not scores:
            return
        if own.score in self.recipe.scores and chosen not in scores:
            return  # it has been reported why that score is not in the plan
        if chosen not in scores:
            names = [key.partition(":")[2] for key in scores if ":" in key]
            what = (
                f"there is no [score.{own.score}]"
                if own.score
                else "the recipe has several scores, but does not say which one to select by"
            )
            hint = f'add to [select]: score = "{names[-1]}"' if names else ""
            self.binder.problem(table.where, what, hint)
            return
        self._add("select", table, {"score": chosen, "pool": "pool"}, SELECTED)

    def _train_and_evaluate(self, arm: str, select: str = "select") -> None:
        suffix = "" if arm == SELECTED else f"@{arm}"
        train, evaluate = (self.recipe.tables.get(stage) for stage in ("train", "evaluate"))
        key = f"train{suffix}"
        if train is not None and self._wants("train") and select in self.nodes:
            self._require_model(train)
            self._add(key, train, {"select": select, "pool": "pool"}, arm)
        if evaluate is None or not self._wants("evaluate"):
            return
        target = evaluate.own.model or (train.own.model if train else None)
        if target is None:
            self._require_model(evaluate)
        inputs = {"train": key} if key in self.nodes and arm != BASE else {}
        model = self.binder.model(evaluate if evaluate.own.model else (train or evaluate))
        if arm == BASE and model is not None:
            model = self.binder.untouched(model, evaluate)
        self._add(f"evaluate{suffix}", evaluate, inputs, arm, model)

    def _require_model(self, table: StageTable) -> None:
        if not table.own.model:
            self.binder.problem(
                table.where, "no model to start from", f'add to {table.where}: model = "..."'
            )

    def _baseline(self, baseline: str) -> None:
        if baseline == BASE:
            self._train_and_evaluate(BASE, select="")
            return
        table = self.recipe.tables.get("select")
        if table is None or "select" not in self.nodes:
            return
        scorer = self.binder.random_scorer()
        self._add(f"score@{RANDOM}", scorer, {"pool": "pool"}, RANDOM)
        if not self.binder.by_rank(table):
            self.binder.problem(
                "[compare]",
                f"the baseline 'random' needs a selector that uses ranks; {table.own.use} selects "
                "by score value",
                'use top-fraction or top-k, or baselines = ["base"]',
            )
        inputs = {"score": f"score@{RANDOM}", "pool": "pool"}
        self._add(f"select@{RANDOM}", table, inputs, RANDOM)
        self._train_and_evaluate(RANDOM, select=f"select@{RANDOM}")

    def _add(
        self,
        key: str,
        table: StageTable,
        inputs: Mapping[str, str],
        arm: str,
        model: ModelRef | None = None,
    ) -> None:
        bound = self.binder.bind(table)
        if bound is None:
            return
        entry, config = bound
        present = {role: key for role, key in inputs.items() if key in self.nodes}
        if model is None and table.own.model:
            model = self.binder.model(table)
        if table.stage == "convert" and model is None:
            self._require_model(table)
        seed = table.own.seed if table.own.seed is not None else self.recipe.head.seed
        self.nodes[key] = Node(
            key, table.stage, entry, config, table.own, present, model, seed, (arm,)
        )

    def _drop_unread(self) -> None:
        """Leave out conversion, warm-up and the pool if no wanted stage reads them."""
        for stage in ("warmup", "convert", "pool"):
            read = {key for node in self.nodes.values() for key in node.inputs.values()}
            if stage in self.nodes and stage not in read and STAGES[self.last] != stage:
                del self.nodes[stage]
                self.not_needed[stage] = "no wanted stage reads it"


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
                yield Problem(f"[{node.stage}]", str(error), error.hint)

"""Which nodes a recipe makes, and what each of them reads."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from selectmoe_core.config import Config, suggest
from selectmoe_core.models.models import ModelRef
from selectmoe_core.plan.binding import Binder
from selectmoe_core.plan.budgets import with_budget
from selectmoe_core.plan.filters import filter_steps, reads_vectors
from selectmoe_core.plan.given import (
    adapter_table,
    arm_of_training,
    check_unmade,
    data_table,
    first_stage,
    untouched,
)
from selectmoe_core.plan.node import BASE, RANDOM, SELECTED, TUNED, Node
from selectmoe_core.plan.samples import WHOLE, scored_pool, without_ratio
from selectmoe_core.plan.vectors import (
    EMBED,
    EMBED_TARGETS,
    TARGETS,
    checkpoints_input,
    embed_steps,
    model_input,
    vector_inputs,
)
from selectmoe_core.plugin.component import Kind
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.recipe.comparison import RUN_BASELINES
from selectmoe_core.recipe.inner_tables import WITHIN
from selectmoe_core.recipe.recipe import STAGES, Recipe, SelectOptions, StageTable

ABOVE = (("select", "score", ""), ("train", "select", "data"), ("warmup", "convert", "model"))
"""Stages that need the table of another one, and the key that gives the input by hand instead."""
READING_POOL = ("filter", "warmup", "score", "select", "train")


class Graph:
    """Decides which nodes there are and what each reads."""

    def __init__(self, recipe: Recipe, binder: Binder, until: str | None) -> None:
        self.recipe = recipe
        self.binder = binder
        self.until = until
        self.last = max((STAGES.index(stage) for stage in self._named()), default=0)
        """The stage that the recipe names last: it is made, and what it needs."""
        self.reach = self.last
        """The last stage that may be needed: filters may read vectors, which are made later."""
        self.first, self.given = first_stage(recipe, self.last)
        """The first stage that may be made, and what is given in place of the earlier ones."""
        self.nodes: dict[str, Node] = {}
        self.not_needed: dict[str, str] = {}

    def build(self) -> None:
        """Find the nodes; the binder collects the mistakes."""
        # All tables first, so that a mistake in one does not hide those of later stages.
        for table in self.recipe.stage_tables:
            if self._wants(table.stage):
                self.binder.bind(table)
            else:
                check_unmade(table, self.binder)
        self.recipe = self.binder.fitted()
        if self._wants("filter") and any(
            reads_vectors(table, self.binder) for table in self.recipe.filters.values()
        ):
            self.reach = max(self.last, STAGES.index(EMBED))
        self._check_present()
        self._pool()
        if self._wants(TARGETS) and TARGETS in self.recipe.tables:
            self._add(TARGETS, self.recipe.tables[TARGETS], {}, SELECTED)
        self._filters(after_vectors=False)
        self._prepare_selector()
        self._embed()
        self._filters(after_vectors=True)
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
        replaced = [stage for stage in STAGES[: self.first] if stage in self.recipe.resolved]
        self.not_needed |= dict.fromkeys(replaced, self.given)

    def _named(self) -> list[str]:
        """Return the stages that the recipe has and the command line wants."""
        stages = STAGES[: STAGES.index(self.until) + 1] if self.until else STAGES
        return [stage for stage in stages if stage in self.recipe.resolved]

    def _wants(self, stage: str) -> bool:
        return self.first <= STAGES.index(WITHIN.get(stage, stage)) <= self.reach

    def _check_present(self) -> None:
        tables = set(self.recipe.resolved)
        if self.until and self.until not in tables:
            there = ", ".join(stage for stage in STAGES if stage in tables)
            what = f"--until {self.until}: the recipe has no [{self.until}]"
            self.binder.problem("", what, f"the stages of this recipe: {there}")
        for stage, needed, instead in ABOVE:
            table = self.recipe.tables.get(stage)
            if not self._wants(stage) or stage not in tables or needed in tables:
                continue
            if table is None or getattr(table.own, instead, None) is None:
                hint = f"add [{needed}]" + (f', or {instead} = "..."' if instead else "")
                self.binder.problem(f"[{stage}]", f"needs a table [{needed}]", hint)
        if "pool" not in tables and self.first < STAGES.index("train"):
            readers = [stage for stage in READING_POOL if self._wants(stage) and stage in tables]
            if readers:
                hint = 'add [pool] with use = "jsonl" and a path'
                self.binder.problem(f"[{readers[0]}]", "there is no [pool] to read", hint)
        if self.recipe.compare.baselines and "evaluate" not in tables:
            self.binder.problem("[compare]", "baselines need [evaluate]", "add [evaluate]")

    def _filters(self, *, after_vectors: bool) -> None:
        """Add the filters: first those that need no vectors, since most of them are cheap."""
        if not self._wants("filter"):
            return
        for step in filter_steps(self.recipe, self.binder):
            if (step.key in self.nodes) or reads_vectors(step.table, self.binder) != after_vectors:
                continue
            self._add(step.key, step.table, step.inputs, SELECTED, step.model, step.config)

    def _embed(self) -> None:
        if self._wants(EMBED):
            for step in embed_steps(self.recipe, self.binder, self.nodes):
                self._add(step.key, step.table, step.inputs, SELECTED)

    def _pool(self) -> None:
        if not self._wants("pool") or "pool" not in self.recipe.tables:
            return
        pool = self.recipe.tables["pool"]
        scored = scored_pool(pool, self.recipe, self.binder) if self._wants("score") else pool
        self._add("pool", scored, {}, SELECTED)
        if scored is not pool and "warmup" in self.recipe.tables:
            self._add(WHOLE, pool, {}, SELECTED)

    def _prepare_selector(self) -> None:
        for stage in ("convert", "warmup"):
            table = self.recipe.tables.get(stage)
            if table is None or not self._wants(stage):
                continue
            inputs = {}
            if stage == "warmup":
                pool = WHOLE if WHOLE in self.nodes else "pool"
                inputs = {"model": "convert", "pool": pool, **self._pairs()}
            if table.own.model:
                inputs.pop("model", None)
            self._add(stage, table, inputs, SELECTED)

    def _pairs(self) -> dict[str, str]:
        """Add the node of ``[warmup.pairs]``, if there is one; return the role it plays."""
        table, warmup = (self.recipe.tables.get(stage) for stage in ("pairs", "warmup"))
        if table is None or warmup is None:
            return {}
        bound = self.binder.bind(table)
        if bound is not None and not bound[0].component.pairs:
            can = [e.component.name for e in self.binder.registry if e.component.pairs]
            self.binder.problem(
                table.where,
                f"the reader {table.own.use} cannot read preference pairs",
                f"readers that can: {', '.join(can) or 'none'}",
            )
        trainer = self.binder.bind(warmup)
        if trainer is not None and Need.PAIRS not in self.binder.needs(warmup, Kind.TRAINER):
            self.binder.problem(
                table.where,
                f"{warmup.own.use} does not learn from preference pairs",
                'use = "select-moe-contrastive" in [warmup], or remove this table',
            )
        self._add("pairs", table, {}, SELECTED)
        return {"pairs": "pairs"}

    def _scores(self) -> None:
        if not self._wants("score"):
            return
        for table in self._ordered_scores():
            key = f"score:{table.name}" if table.name else "score"
            self._add(key, without_ratio(table), self._score_inputs(table), SELECTED)

    def _ordered_scores(self) -> Iterable[StageTable]:
        """Return the scores, each after those that it reads; none where they read one another."""
        scores = self.recipe.scores
        reads = {name: self.binder.score_names(table) for name, table in scores.items()}
        known = {name: [read for read in reads[name] if read in scores] for name in scores}
        try:
            return [scores[name] for name in TopologicalSorter(known).static_order()]
        except CycleError as error:
            circle = error.args[1][::-1]
            what = f"the score reads itself: {' reads '.join(circle)}"
            hint = f"take one of them out of the scores that {circle[0]} reads"
            self.binder.problem(scores[circle[0]].where, what, hint)
            return []

    def _score_inputs(self, table: StageTable) -> dict[str, str]:
        needs = self.binder.needs(table, Kind.SCORER)
        inputs = {"pool": "pool"} if "pool" in self.nodes else {}
        inputs |= model_input(table, needs, self.binder, self.nodes)
        inputs |= checkpoints_input(table, needs, self.binder, self.nodes)
        inputs |= vector_inputs(table, needs, self.recipe, self.binder)
        for name in self.binder.score_names(table):
            if f"score:{name}" in self.nodes:
                inputs[f"score:{name}"] = f"score:{name}"
            elif name not in self.recipe.scores:
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
            alone = "there is one [score], without a name: remove 'score' from [select]"
            hint = f'add to [select]: score = "{names[-1]}"' if names else alone
            self.binder.problem(table.where, what, hint)
            return
        self._add_select("select", table, chosen, SELECTED)

    def _add_select(self, key: str, table: StageTable, score: str, arm: str) -> None:
        """Add a selection; the filters do not depend on the score, so that every arm has them."""
        filters = {key: key for key in map("filter:{}".format, self.recipe.filters)}
        needs = self.binder.needs(table, Kind.SELECTOR)
        model = self.binder.target_model(table) if Need.MODEL in needs else None
        vectors = vector_inputs(table, needs, self.recipe, self.binder)
        inputs = {"score": score, "pool": "pool", **filters, **vectors}
        self._add(key, table, inputs, arm, model, with_budget(table, self.recipe, self.binder))

    def _train_and_evaluate(self, arm: str, select: str = "select") -> None:
        train, evaluate = (self.recipe.tables.get(stage) for stage in ("train", "evaluate"))
        key = "train" if arm == SELECTED else f"train@{arm}"
        if train is not None and self._wants("train") and arm != BASE:
            arm = self._train(train, key, arm, select)
        if evaluate is not None and self._wants("evaluate"):
            self._evaluate(evaluate, train, key, arm)

    def _train(self, train: StageTable, key: str, arm: str, select: str) -> str:
        """Add a training on the selection, or on given data; return the arm it belongs to."""
        inputs = {"select": select, "pool": "pool"}
        if arm_of_training(train) == TUNED:
            arm, inputs = TUNED, {"pool": "pool"}
            self._add("pool", data_table(train, self.binder), {}, arm)
        elif select not in self.nodes:
            return arm
        self._require_model(train)
        self._add(key, train, inputs, arm)
        return arm

    def _evaluate(self, table: StageTable, train: StageTable | None, key: str, arm: str) -> None:
        inputs = {"train": key} if key in self.nodes else {}
        table, model, own_arm = adapter_table(table, self.binder)
        if model is None and train is not None:
            model = self.binder.model(train)
        if model is None and train is None:
            self._require_model(table)
        if arm == BASE:
            table = untouched(table)
            model = self.binder.untouched(model, table) if model is not None else None
        elif not inputs:
            arm = own_arm
        suffix = f"@{arm}" if arm in (BASE, RANDOM) and "evaluate" in self.nodes else ""
        if not any(node.stage == "evaluate" and arm in node.arms for node in self.nodes.values()):
            self._add(f"evaluate{suffix}", table, inputs, arm, model)

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
            reason = self.given or "the recipe selects nothing"
            self.not_needed[f"baseline {RANDOM}"] = reason
            return
        scorer = self.binder.random_scorer()
        self._add(f"score@{RANDOM}", scorer, {"pool": "pool"}, RANDOM)
        drawn = self.binder.random_selector(table)
        self._add_select(f"select@{RANDOM}", drawn, f"score@{RANDOM}", RANDOM)
        self._train_and_evaluate(RANDOM, select=f"select@{RANDOM}")

    def _add(
        self,
        key: str,
        table: StageTable,
        inputs: Mapping[str, str],
        arm: str,
        model: ModelRef | None = None,
        config: Config | None = None,
    ) -> None:
        bound = self.binder.bind(table)
        if bound is None:
            return
        entry = bound[0]
        present = {role: key for role, key in inputs.items() if key in self.nodes}
        if model is None and table.own.model:
            model = self.binder.model(table)
        if table.stage == "convert" and model is None:
            self._require_model(table)
        seed = table.own.seed if table.own.seed is not None else self.recipe.head.seed
        self.nodes[key] = Node(
            key,
            table.stage,
            entry,
            config or bound[1],
            table.own,
            present,
            model,
            seed,
            (arm,),
            table.where,
        )

    def _drop_unread(self) -> None:
        """Leave out what no wanted stage reads: filters, vectors, targets, and what is before."""
        filters = [key for key, node in self.nodes.items() if node.stage == "filter"]
        vectors = (EMBED, EMBED_TARGETS, TARGETS)
        for key in (*filters, *vectors, "questions", "warmup", "pairs", "convert", WHOLE, "pool"):
            read = {name for node in self.nodes.values() for name in node.inputs.values()}
            wanted = key in self.nodes and STAGES[self.last] == self.nodes[key].stage
            if key in self.nodes and key not in read and not wanted:
                del self.nodes[key]
                self.not_needed[key] = "no wanted stage reads it"

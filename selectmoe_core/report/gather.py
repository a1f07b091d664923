"""Makes the summary of a run from its record: opens the artifacts for each section."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from selectmoe_core.data.pool import Pool
from selectmoe_core.data.scores import ScoreTable
from selectmoe_core.data.selection import selected_rows
from selectmoe_core.report.distribution import summarise_scores
from selectmoe_core.report.evaluation import order_arms, summarise_evaluation
from selectmoe_core.report.findings import Agreement, Languages, Lengths, SelectionDifference
from selectmoe_core.report.record import NodeRecord, RunRecord
from selectmoe_core.report.sections.against import Side, selection_difference
from selectmoe_core.report.sections.agreement import agreements
from selectmoe_core.report.sections.composition import (
    summarise_pool,
    summarise_selection,
)
from selectmoe_core.report.sections.curves import summarise_training
from selectmoe_core.report.sections.examples import Choice
from selectmoe_core.report.sections.headline import make_headline
from selectmoe_core.report.sections.languages import summarise_languages
from selectmoe_core.report.sections.lengths import summarise_lengths
from selectmoe_core.report.summary import (
    EvaluationSummary,
    PoolSummary,
    ScoreSummary,
    SelectionSummary,
    Summary,
    TrainingSummary,
)
from selectmoe_core.runtime.progress import Advance
from selectmoe_core.store import Artifact

SECTIONS = 9
OWN, RANDOM = "selected", "random"
SECTION_NAMES = (
    "pool",
    "scores",
    "selection",
    "training",
    "evaluation",
    "lengths",
    "languages",
    "agreements",
    "differences",
)


def gather(
    record: RunRecord, advance: Advance = lambda _: None, against: RunRecord | None = None
) -> Summary:
    """Return the summary of a run; sections of stages that did not run stay empty.

    Args:
        record: the run.
        advance: called with the number of finished sections.
        against: another run, whose selection is compared with this one's.
    """
    opened = _Opened(record, against)
    sections = {}
    for name in SECTION_NAMES:
        sections[name] = getattr(opened, f"{name}_section")()
        advance(1)
    found = Summary(record=record, own=opened.own, notes=tuple(opened.notes), **sections)
    return replace(found, headline=make_headline(found))


@dataclass
class _Opened:
    """The artifacts of a run by node."""

    record: RunRecord
    against: RunRecord | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def artifacts(self) -> Mapping[str, Artifact]:
        """The artifacts by the key of their node."""
        found = {}
        for node in self.record.nodes:
            artifact = Artifact.load(node.folder)
            if artifact is None:
                self.notes.append(f"{node.key}: its artifact {node.folder} is missing")
            elif damage := artifact.damage():
                self.notes.append(f"{node.key}: {damage}")
            else:
                found[node.key] = artifact
        return found

    @cached_property
    def own(self) -> str:
        """The arm that the report is about: the recipe's own."""
        arms = [arm for node in self.record.nodes for arm in node.arms]
        return OWN if OWN in arms or not arms else arms[0]

    def nodes(self, stage: str) -> list[NodeRecord]:
        """Return the nodes of a stage whose artifacts exist."""
        return [n for n in self.record.nodes if n.stage == stage and n.key in self.artifacts]

    def of_arm(self, stage: str, arm: str) -> Artifact | None:
        """Return the artifact of a stage that an arm uses; the last one if it has several."""
        nodes = [node for node in self.nodes(stage) if arm in node.arms]
        return self.artifacts[nodes[-1].key] if nodes else None

    @cached_property
    def main_score(self) -> NodeRecord | None:
        """The score by which the own arm was selected."""
        nodes = [node for node in self.nodes("score") if self.own in node.arms]
        select = tomllib.loads(self.record.recipe).get("select", {})
        wanted = f"score:{select['score']}" if select.get("score") else "score"
        named = [node for node in nodes if node.key == wanted]
        return (named or nodes)[-1] if nodes else None

    @cached_property
    def pool(self) -> Pool | None:
        """The pool, if the run made or reused one."""
        nodes = self.nodes("pool")
        return Pool.open(self.artifacts[nodes[0].key].folder) if nodes else None

    def pool_section(self) -> PoolSummary | None:
        """Return the pool's composition."""
        if self.pool is None:
            return None
        scored = [self.artifacts[node.key].facts for node in self.nodes("score")]
        counted = next((facts for facts in scored if facts.get("tokens")), {})
        return summarise_pool(self.pool, counted)

    def scores_section(self) -> tuple[ScoreSummary, ...]:
        """Return the scores of the own arm; the one that it was selected by is first."""
        nodes = [node for node in self.nodes("score") if self.own in node.arms]
        nodes.sort(key=lambda node: node is not self.main_score)
        return tuple(self._scores(node) for node in nodes)

    def _scores(self, node: NodeRecord) -> ScoreSummary:
        final = node is self.main_score
        selected = self.of_arm("select", self.own) if final else None
        choice = Choice(selected.folder) if selected else None
        found = self.artifacts[node.key]
        return summarise_scores(node.key, found, self.pool, choice, examples=final)

    def selection_section(self) -> SelectionSummary | None:
        """Return the selection of the own arm, compared with the pool and the random arm."""
        selected, baseline = self.of_arm("select", self.own), self.of_arm("select", RANDOM)
        for node in self.nodes("filter"):
            found = self.artifacts[node.key].facts.get("warnings", ())
            self.notes += [f"{node.key}: {text}" for text in found]
        if selected is None:
            return None
        same = baseline is not None and baseline.digest == selected.digest
        return summarise_selection(self.own, selected, None if same else baseline, self.pool)

    def training_section(self) -> tuple[TrainingSummary, ...]:
        """Return the curves of warm-up and of every arm's training."""
        nodes = [*self.nodes("warmup"), *self.nodes("train")]
        found = [summarise_training(n.key, self.artifacts[n.key], n.arms) for n in nodes]
        return tuple(training for training in found if training is not None)

    def evaluation_section(self) -> EvaluationSummary | None:
        """Return the evaluation of every arm."""
        nodes = self.nodes("evaluate")
        arms = {arm: self.artifacts[node.key] for node in nodes for arm in node.arms}
        if not arms:
            return None
        return summarise_evaluation({arm: arms[arm] for arm in order_arms(tuple(arms))}, self.own)

    def lengths_section(self) -> Lengths | None:
        """Return how long the examples of the pool and of the selections are."""
        if self.pool is None:
            return None
        chosen = {arm: self.of_arm("select", arm) for arm in dict.fromkeys((self.own, RANDOM))}
        rows = {arm: selected_rows(found.folder) for arm, found in chosen.items() if found}
        scores = [self.artifacts[node.key] for node in self.nodes("score")]
        return summarise_lengths(self.pool, scores, rows)

    def languages_section(self) -> Languages | None:
        """Return the languages of the pool, where a filter counted them."""
        filters = [self.artifacts[node.key].facts for node in self.nodes("filter")]
        chosen = {arm: self.of_arm("select", arm) for arm in dict.fromkeys((self.own, RANDOM))}
        selections = {f"{arm}: chosen": one.facts for arm, one in chosen.items() if one}
        return summarise_languages(filters, selections)

    def agreements_section(self) -> tuple[Agreement, ...]:
        """Return how much the own arm's scores agree."""
        nodes = [node for node in self.nodes("score") if self.own in node.arms]
        if len(nodes) < 2:
            return ()
        scores = {n.key: ScoreTable.open(self.artifacts[n.key].folder).score() for n in nodes}
        selected = self.of_arm("select", self.own)
        rows = len(next(iter(scores.values())))
        best = len(selected_rows(selected.folder)) if selected else rows // 10
        return agreements(scores, max(1, best))

    def differences_section(self) -> tuple[SelectionDifference, ...]:
        """Return the own selection beside the random arm's, and beside another run's."""
        mine = self.side(self.own, self.own)
        others = [self.side(RANDOM, RANDOM)]
        if self.against is not None:
            other = _Opened(self.against)
            others.append(other.side(other.own, f"{self.against.name}, {self.against.started}"))
            self.notes += [f"the other run: {note}" for note in other.notes]
            if others[-1] is None:
                self.notes.append(f"the run of {self.against.started} has no selection to compare")
        return tuple(
            selection_difference(mine, other)
            for other in others
            if mine is not None and other is not None and mine.folder != other.folder
        )

    def side(self, arm: str, name: str) -> Side | None:
        """Return the selection of an arm, for a comparison."""
        selected = self.of_arm("select", arm)
        nodes = self.nodes("pool")
        if selected is None or self.pool is None:
            return None
        node = next((n for n in self.nodes("score") if arm in n.arms), None)
        node = self.main_score if arm == self.own else node
        score = ScoreTable.open(self.artifacts[node.key].folder).score() if node else None
        if score is not None and len(score) != len(self.pool):
            score = None
        return Side(name, selected.folder, self.pool, nodes[0].digest, score)

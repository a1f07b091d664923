"""What a plugin offers: a name, typed options, and a way to build the part."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from selectmoe_core.config import Config
from selectmoe_core.cost import Cost, Workload
from selectmoe_core.plugin.protocols import Need

ConfigT = TypeVar("ConfigT", bound=Config)
PartT_co = TypeVar("PartT_co", covariant=True)


class Kind(StrEnum):
    """The kinds of component, in the order of the chain."""

    READER = "reader"
    FILTER = "filter"
    CONVERTER = "converter"
    EMBEDDER = "embedder"
    SCORER = "scorer"
    SELECTOR = "selector"
    TRAINER = "trainer"
    EVALUATOR = "evaluator"
    TRACKER = "tracker"
    EXECUTOR = "executor"

    @property
    def hook(self) -> str:
        """The name of the hook that offers components of this kind."""
        return f"selectmoe_{self}s"


KINDS = {
    "pool": Kind.READER,
    "targets": Kind.READER,
    "questions": Kind.EVALUATOR,
    "filter": Kind.FILTER,
    "convert": Kind.CONVERTER,
    "pairs": Kind.READER,
    "warmup": Kind.TRAINER,
    "embed": Kind.EMBEDDER,
    "score": Kind.SCORER,
    "select": Kind.SELECTOR,
    "train": Kind.TRAINER,
    "evaluate": Kind.EVALUATOR,
}
"""The kind of component that does each stage."""

SHARED_STAGES = ("warmup", "embed", "score", "train", "evaluate")
"""Stages that several processes can execute together; one process executes each other stage."""


@dataclass(frozen=True)
class About:
    """What a user should know before choosing a component.

    Attributes:
        meaning: what the number or the result means.
        range: the values it can have, and which direction is better.
        cost: the cost in words.
        paper: the source of the method.
    """

    meaning: str = ""
    range: str = ""
    cost: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Meaning:
    """How a report should show a detail of a score.

    Attributes:
        title: what the shown number is, in a few words.
        complement: whether the report shows 1 minus the stored number, as for a mass on trash cans
            that is stored so that higher is better.
        each: what the columns of a detail ``[examples, width]`` are, for example ``layer``.
        share: whether the number is a share, from 0 to 1.
        rows: for ``features`` alone: the detail that has a column for each of what the vectors
            hold one after another, for example for each layer.
    """

    title: str
    complement: bool = False
    each: str = ""
    share: bool = False
    rows: str = ""


def _no_details(_: Any) -> Mapping[str, Meaning]:  # noqa: ANN401
    return {}


def _needs_nothing(_: Any) -> frozenset[Need]:  # noqa: ANN401
    return frozenset()


@dataclass(frozen=True)
class Component(Generic[ConfigT, PartT_co]):
    """A named way to do one stage.

    Attributes:
        name: what a recipe writes after ``use =``.
        config: its options.
        build: makes the part; called only when the stage runs, so heavy imports belong here.
        about: what a user should know.
        needs: what it reads, given its options.
        cost: an estimate of what it will use, or ``None`` if that is unknown.
        requires: modules of an optional extra, checked without importing them; if the package has
            another name than the module, or is an extra, both: ``re2:google-re2``,
            ``ray:selectmoe[ray]``.
        seeded: whether the stage's seed changes the result.
        by_rank: a selector whose choice depends on the order of the scores alone.
        torch: whether it computes with torch: such a stage runs in a child process.
        one_process: whether its stage always runs in one process, while others of its kind share
            the work: for a trainer or evaluator that does not use ``Job.world``.
        files: the files whose content decides the result (for a reader: what will be read);
            ``plan`` reports a path that does not exist.
        unseen: what can change the result and no digest covers, in words (data that is read from
            the network, say): a result with any of it is never reused.
        endings: the endings of the files that a reader reads, such as ``.jsonl``: with them a file
            finds its reader where no recipe names one.
        sources: a reader's sources as its options and file names show them: ``plan`` prints
            them without reading a file.
        scores: names of the other scores it reads (needs ``SCORES``).
        max_skipped: a scorer's own rule for the share it may skip if the recipe does not set one;
            ``None`` means 1 %.
        damages: the kinds of damage that a trainer shows the model, ``None`` for all that have
            a rate: an audit separates them from kinds that the model never saw.
        keeps: what a trainer leaves for later stages with these options: ``CHECKPOINTS``, and
            ``MOMENTS`` if Adam's are in them. By default it is not known before it has run.
        questions: an evaluator's options cut down to those that decide which questions it asks;
            it says that the evaluator can give them (``AskingEvaluator``).
        pairs: whether a reader can read preference pairs (``PairReader``).
        by_default: which recipes have a filter without writing it, under its own name, unless they
            have a filter of that name or of this component: those that select and evaluate
            (``evaluated``), or those that select to train and skip unusable rows (``skipping``).
        budget: a selector's options with what they leave to the plan: it receives them, and a
            function that says how many tokens fit so many hours of a card, ``tokens(2.0, "h100")``.
        details: how a report should show the details of a scorer, by name; those without an entry
            are shown as they are.
    """

    name: str
    config: type[ConfigT]
    build: Callable[[ConfigT], PartT_co]
    about: About = About()
    needs: Callable[[ConfigT], frozenset[Need]] = _needs_nothing
    cost: Callable[[ConfigT, Workload], Cost] | None = None
    requires: tuple[str, ...] = ()
    seeded: bool = False
    by_rank: bool = True
    torch: bool = False
    one_process: bool = False
    files: Callable[[ConfigT], Iterable[Path]] | None = None
    unseen: Callable[[ConfigT], Iterable[str]] | None = None
    endings: tuple[str, ...] = ()
    sources: Callable[[ConfigT], Iterable[str]] | None = None
    scores: Callable[[ConfigT], Iterable[str]] | None = None
    max_skipped: Callable[[ConfigT], float] | None = None
    damages: Callable[[ConfigT], Iterable[str] | None] | None = None
    keeps: Callable[[ConfigT], frozenset[Need]] | None = None
    questions: Callable[[ConfigT], ConfigT] | None = None
    pairs: bool = False
    budget: Callable[[ConfigT, Callable[[float, str], int]], ConfigT] | None = None
    by_default: Literal["", "evaluated", "skipping"] = ""
    details: Callable[[ConfigT], Mapping[str, Meaning]] = _no_details

    @property
    def summary(self) -> str:
        """The first line of the options' docstring."""
        return (self.config.__doc__ or "").strip().partition("\n")[0]

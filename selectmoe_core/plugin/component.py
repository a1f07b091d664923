"""What a plugin hands over: a name, typed options, and a way to build the part."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from selectmoe_core.config import Config
from selectmoe_core.cost import Cost, Workload
from selectmoe_core.plugin.protocols import Need

ConfigT = TypeVar("ConfigT", bound=Config)
PartT_co = TypeVar("PartT_co", covariant=True)


class Kind(StrEnum):
    """The kinds of component, in the order of the chain."""

    READER = "reader"
    CONVERTER = "converter"
    SCORER = "scorer"
    SELECTOR = "selector"
    TRAINER = "trainer"
    EVALUATOR = "evaluator"

    @property
    def hook(self) -> str:
        """The name of the hook that offers components of this kind."""
        return f"selectmoe_{self}s"


KINDS = {
    "pool": Kind.READER,
    "convert": Kind.CONVERTER,
    "warmup": Kind.TRAINER,
    "score": Kind.SCORER,
    "select": Kind.SELECTOR,
    "train": Kind.TRAINER,
    "evaluate": Kind.EVALUATOR,
}
"""The kind of component that does each stage."""

SHARED_STAGES = ("warmup", "score", "train", "evaluate")
"""Stages that several processes can execute together; one process executes each other stage."""


@dataclass(frozen=True)
class About:
    """What a user should know before choosing a component.

    Attributes:
        meaning: what the number or the result says.
        range: the values it can take, with the direction.
        cost: what it takes, in words.
        paper: where it comes from.
    """

    meaning: str = ""
    range: str = ""
    cost: str = ""
    paper: str = ""


def _needs_nothing(_: Any) -> frozenset[Need]:  # noqa: ANN401
    return frozenset()


@dataclass(frozen=True)
class Component(Generic[ConfigT, PartT_co]):
    """A named way to do one stage.

    Attributes:
        name: what a recipe writes after ``use =``.
        config: its options.
        build: makes the part; called only when the stage runs: the one place for heavy imports.
        about: what a user should know.
        needs: what it reads, given its options.
        cost: what it will use, or ``None`` where nobody knows.
        requires: modules of an optional extra, checked without importing them.
        seeded: whether the stage's seed changes the result.
        by_rank: a selector whose choice depends on the order of the scores alone.
        torch: whether it computes with torch: such a stage runs in a process of its own.
        one_process: whether its stage runs in one process even where others of its kind share the
            work among several: for a trainer or evaluator that does not look at ``Job.world``.
        files: the files whose content decides the result (readers: what will be read); a path
            that does not exist is reported by ``plan``.
        sources: a reader's sources as far as its options and the names of its files say: ``plan``
            shows them, and reads no file for it.
        scores: names of the other scores it reads (needs ``SCORES``).
        max_skipped: a scorer's own rule for the share it may skip where the recipe says nothing;
            ``None`` is 1 %.
        damages: a trainer's kinds of damage that it shows the model, ``None`` for all that have
            a rate: an audit tells them apart from those that the model never saw.
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
    sources: Callable[[ConfigT], Iterable[str]] | None = None
    scores: Callable[[ConfigT], Iterable[str]] | None = None
    max_skipped: Callable[[ConfigT], float] | None = None
    damages: Callable[[ConfigT], Iterable[str] | None] | None = None

    @property
    def summary(self) -> str:
        """The first line of the options' docstring."""
        return (self.config.__doc__ or "").strip().partition("\n")[0]

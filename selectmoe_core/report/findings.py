"""What single sections of the report show, as plain values; ``summary`` puts them together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

LARGEST = 3
"""Pieces that are named for readers who do not see shades."""
HIDDEN = {"document": False}
"""The metadata of a field that ``report.json`` leaves out."""


@dataclass(frozen=True)
class Headline:
    """What the report says first.

    Attributes:
        selection: how many were chosen, of how many and by what; empty without a selection.
        result: the own arm against the baseline in one sentence; empty without both.
        verdict: ``better``, ``worse``, ``no difference``, ``no verdict`` or empty.
        verdict_text: the verdict in a few words.
        overrides: what the command line changed in the recipe.
        ran: what ran, in one sentence.
        warnings: what a reader should know before trusting the result.
        next_steps: what it is for, and a command.
    """

    selection: str = ""
    result: str = ""
    verdict: str = ""
    verdict_text: str = ""
    overrides: tuple[str, ...] = ()
    ran: str = ""
    warnings: tuple[str, ...] = ()
    next_steps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message of a shown example; ``hidden`` characters of a very long one are left out."""

    role: str
    content: str
    hidden: int = 0


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens with one shade.

    Attributes:
        text: their text.
        level: 0 for no number, 1 to 5 for larger and larger values, -1 to -5 below zero.
        value: their mean; ``None`` for no number.
        counts: whether the score is computed from them.
    """

    text: str
    level: int
    value: float | None
    counts: bool


@dataclass(frozen=True)
class Shading:
    """The tokens of an example with the numbers of the scorer.

    Attributes:
        name: what the numbers are.
        pieces: the text, in order.
        low: the smallest number of all shown examples.
        high: the largest.
        hidden: tokens that are left out at the end.
    """

    name: str
    pieces: tuple[Piece, ...]
    low: float
    high: float
    hidden: int = 0

    @property
    def largest(self) -> tuple[Piece, ...]:
        """The pieces with the largest numbers, for readers who do not see shades."""
        known = [piece for piece in self.pieces if piece.value is not None and piece.text.strip()]
        return tuple(sorted(known, key=lambda piece: -(piece.value or 0.0))[:LARGEST])


@dataclass(frozen=True)
class ShownExample:
    """An example in full.

    Attributes:
        row: its position in the pool.
        kinds: of ``best``, ``worst``, ``border``, ``chosen`` and ``random``.
        score: its score; NaN if it has none.
        percentile: the share of its source's scored examples with a lower score, in percent.
        source: its source.
        id: 32 hexadecimal digits.
        where: where the reader found it.
        label: the reader's note.
        rank: its rank in the selection, or ``None``.
        why: why it was chosen, or not.
        turns: the messages.
        details: titles and values of the scorer's details.
        shading: its tokens, where the scorer gave numbers for them.
    """

    row: int
    kinds: tuple[str, ...]
    score: float
    percentile: float
    source: str
    id: str
    where: str
    label: str
    rank: int | None
    why: str
    turns: tuple[Turn, ...]
    details: tuple[tuple[str, str], ...] = ()
    shading: Shading | None = field(default=None, repr=False, metadata=HIDDEN)

    @property
    def prompt(self) -> str:
        """The first message of the user, or the first message."""
        asked = [turn.content for turn in self.turns if turn.role == "user"]
        return asked[0] if asked else next((turn.content for turn in self.turns), "")

    @property
    def answer(self) -> str:
        """The first answer."""
        return next((turn.content for turn in self.turns if turn.role == "assistant"), "")

    @property
    def characters(self) -> int:
        """Its length."""
        return sum(len(turn.content) + turn.hidden for turn in self.turns)


@dataclass(frozen=True)
class HeatMap:
    """The mean of a detail for each source and column, for example each layer of a router.

    Attributes:
        title: what the number is.
        each: what the columns are.
        share: whether it is a share, from 0 to 1.
        sources: the sources, the first row being the whole pool; or other rows, as layers.
        columns: the names of the columns.
        values: float ``[sources, columns]``.
    """

    title: str
    each: str
    share: bool
    sources: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray

    @property
    def low(self) -> float:
        """The smallest value."""
        return float(np.nanmin(self.values)) if np.isfinite(self.values).any() else 0.0

    @property
    def high(self) -> float:
        """The largest value."""
        return float(np.nanmax(self.values)) if np.isfinite(self.values).any() else 0.0


@dataclass(frozen=True)
class LayerLoad:
    """How a layer shares its slots, each figure before and after the training.

    Attributes:
        layer: its number, from 0.
        trash: the share of all slots that go to trash cans.
        busiest: the share of the busiest expert, of the slots that go to experts.
        idle: how many experts get less than a tenth of an even share of these.
    """

    layer: int
    trash: tuple[float, float]
    busiest: tuple[float, float]
    idle: tuple[int, int]


@dataclass(frozen=True)
class ExpertLoad:
    """How a router shares the slots of a sample's tokens, before and after a training.

    Attributes:
        examples: how many the sample has.
        tokens: how many they have.
        experts: how many of the outputs are experts; the others are trash cans.
        before: the share of each output by layer.
        after: the same after the training.
        layers: the figures of each layer.
    """

    examples: int
    tokens: int
    experts: int
    before: HeatMap
    after: HeatMap
    layers: tuple[LayerLoad, ...]


@dataclass(frozen=True)
class Agreement:
    """Two scores on the same examples.

    Attributes:
        first: the name of one.
        second: the name of the other.
        correlation: Spearman's, over examples that both score.
        rows: how many these are.
        best: how many of the best are looked at.
        overlap: how many of the best of one are among the best of the other.
        chance: how many that would be if the scores had nothing to do with each other.
    """

    first: str
    second: str
    correlation: float
    rows: int
    best: int
    overlap: int
    chance: float


@dataclass(frozen=True)
class LengthRow:
    """How long the examples of a group are.

    Attributes:
        name: ``pool``, ``selected`` or ``random``.
        examples: how many there are.
        total: the sum of their lengths.
        quantiles: 5, 25, 50, 75 and 95 %.
        counts: examples in each bin, int ``[bins]``.
    """

    name: str
    examples: int
    total: int
    quantiles: tuple[float, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class Lengths:
    """The lengths of examples.

    Attributes:
        unit: ``tokens`` or ``characters``.
        edges: of the bins, ``[bins + 1]``; the last bin also holds what is longer.
        rows: the pool and the selections.
    """

    unit: str
    edges: np.ndarray
    rows: tuple[LengthRow, ...]


@dataclass(frozen=True)
class LanguageRow:
    """The languages of a source, or of the whole pool: examples in the order of the columns."""

    name: str
    examples: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Languages:
    """The languages of the pool.

    Attributes:
        languages: how many there are.
        codes: the columns: the most frequent codes, and perhaps ``others``.
        rows: the whole pool, what was chosen of it, then its sources, the largest first.
    """

    languages: int
    codes: tuple[str, ...]
    rows: tuple[LanguageRow, ...]


@dataclass(frozen=True)
class ComparedExample:
    """An example of one of two selections, or of both.

    Attributes:
        group: ``both``, ``first`` or ``second``.
        id: 32 hexadecimal digits.
        source: its source.
        ranks: its rank in each, ``None`` where it is not chosen.
        scores: its score in each; ``None`` where it is not known.
        turns: the messages.
    """

    group: str
    id: str
    source: str
    ranks: tuple[int | None, int | None]
    scores: tuple[float | None, float | None]
    turns: tuple[Turn, ...]

    prompt = ShownExample.prompt
    answer = ShownExample.answer


@dataclass(frozen=True)
class SelectionDifference:
    """Two selections, example by example.

    Attributes:
        names: of the selections.
        sizes: rows of each.
        common: rows of both.
        chance: rows that two random selections of these sizes would share; ``None`` if the pools
            differ.
        sources: for each source the rows of the first, of the second, and of both.
        examples: some of those that one alone has, and of those that both have.
    """

    names: tuple[str, str]
    sizes: tuple[int, int]
    common: int
    chance: float | None
    sources: Mapping[str, tuple[int, int, int]]
    examples: tuple[ComparedExample, ...]

    @property
    def jaccard(self) -> float:
        """Rows of both by rows of either."""
        either = sum(self.sizes) - self.common
        return self.common / either if either else 1.0

"""Two selections side by side: what they share, where they come from, how long they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from selectmoe_core.runtime.terminal import one_line
from selectmoe_core.selections.chosen import Chosen

SHOWN = 5
"""Rows shown of those that one selection alone has."""
START = 60
"""Characters shown of a prompt."""


@dataclass(frozen=True)
class Row:
    """A selected row in short.

    Attributes:
        id: 32 hexadecimal digits.
        source: its source.
        rank: its rank in its selection.
        score: its score there.
        prompt: the beginning of the first message of the user.
        lengths: characters of prompt and answers.
    """

    id: str
    source: str
    rank: int
    score: float
    prompt: str
    lengths: tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """What two selections have in common, and what not.

    Attributes:
        sizes: rows of each.
        common: rows of both.
        sources: for each source: rows of the first, of the second, of both.
        lengths: for each selection the median characters of prompt and answers.
        only: the best rows that one alone has, of each.
    """

    sizes: tuple[int, int]
    common: int
    sources: Mapping[str, tuple[int, int, int]]
    lengths: tuple[tuple[float, float], tuple[float, float]]
    only: tuple[tuple[Row, ...], tuple[Row, ...]]

    @property
    def jaccard(self) -> float:
        """Rows of both by rows of either: 1 for equal selections, 0 for disjoint ones."""
        return self.common / (sum(self.sizes) - self.common)

    def document(self) -> dict[str, Any]:
        """Return the difference as JSON values."""
        return {**asdict(self), "jaccard": self.jaccard}


def difference(first: Chosen, second: Chosen) -> Difference:
    """Compare two selections by the ids of their rows."""
    both = [{row.id: row for row in map(_short, chosen.rows())} for chosen in (first, second)]
    common = both[0].keys() & both[1].keys()
    names = sorted({row.source for own in both for row in own.values()})
    counts = [_counts(own.values()) for own in both]
    shared = _counts(row for row in both[0].values() if row.id in common)
    only = [tuple(row for row in own.values() if row.id not in common)[:SHOWN] for own in both]
    return Difference(
        sizes=(len(both[0]), len(both[1])),
        common=len(common),
        sources={
            name: (counts[0].get(name, 0), counts[1].get(name, 0), shared.get(name, 0))
            for name in names
        },
        lengths=(_medians(both[0].values()), _medians(both[1].values())),
        only=(only[0], only[1]),
    )


def difference_lines(found: Difference, names: tuple[str, str]) -> Iterator[str]:
    """Yield the difference as text for a terminal."""
    first, second = names
    yield f"A: {first}"
    yield f"B: {second}"
    yield ""
    yield f"rows: A {found.sizes[0]:,}, B {found.sizes[1]:,}, both {found.common:,}"
    yield f"Jaccard: {found.jaccard:.3f}"
    for name, (prompt, answer) in zip("AB", found.lengths, strict=True):
        yield f"median characters of {name}: prompt {prompt:,.0f}, answers {answer:,.0f}"
    yield ""
    yield from _aligned(
        [
            ("source", "A", "B", "both"),
            *((one_line(name), *map("{:,}".format, of)) for name, of in found.sources.items()),
        ]
    )
    for name, own in zip("AB", found.only, strict=True):
        if own:
            yield from ("", f"The best rows that {name} alone has:")
        for row in own:
            shown = f"{one_line(row.source)} {row.id}: {one_line(row.prompt)}"
            yield f"  {row.rank:,}. {row.score:.5g} {shown}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells])


def _short(row: Mapping[str, Any]) -> Row:
    answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    others = [turn["content"] for turn in row["messages"] if turn["role"] != "assistant"]
    asked = next((turn["content"] for turn in row["messages"] if turn["role"] == "user"), "")
    lengths = sum(map(len, others)), sum(map(len, answers))
    prompt = " ".join(asked[: 4 * START].split())[:START]
    return Row(row["id"], row["source"], row["rank"], row["score"], prompt, lengths)


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.source] = counts.get(row.source, 0) + 1
    return counts


def _medians(rows: Iterable[Row]) -> tuple[float, float]:
    lengths = [row.lengths for row in rows]
    prompt, answer = np.median(np.array(lengths, dtype=np.float64), axis=0).tolist()
    return prompt, answer

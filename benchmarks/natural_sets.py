"""Rows whose quality people judged: the sets, their pairs, and folds that keep prompts together."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from evidence_data import Judged, normal

from selectmoe_core import RawExample, RawPair
from selectmoe_core.data.examples import Example, content_id, conversation_problem
from selectmoe_core.data.pairs import pair_problem
from selectmoe_core.data.turns import messages_from

BAD = "bad"


@dataclass(frozen=True)
class NaturalSet:
    """A file of judged rows.

    Each row holds ``messages`` (a prompt and an answer), ``quality`` (``good`` or ``bad``), and may
    hold ``pair`` (rows of one pair are compared) and ``prompt_in_pool`` (such rows are left out).

    Attributes:
        name: in the tables.
        file: in the data folder.
        wrong: what is wrong with its bad rows.
    """

    name: str
    file: str
    wrong: str


SETS = (
    NaturalSet("pandalm", "natural/pandalm.jsonl", "the worse of two answers of 7B models"),
    NaturalSet("sni", "natural/sni_examples.jsonl", "examples that were written as bad ones"),
    NaturalSet("llmbar", "natural/llmbar.jsonl", "does not follow the instruction, looks better"),
    NaturalSet("mbpp", "natural/mbpp_sanitized.jsonl", "rows that were fixed by hand, before that"),
    NaturalSet("chains", "natural/chains_of_thought.jsonl", "a step of the reasoning is wrong"),
)
"""A further set is one more entry; a set whose file is not there is left out."""


@dataclass(frozen=True)
class Natural:
    """The rows of a set.

    Attributes:
        about: the set.
        examples: its rows.
        good: whether each is good, bool ``[rows]``.
        groups: equal for rows that share a prompt or a pair, int ``[rows]``.
        pairs: positions of a good and a bad row of one pair, int ``[pairs, 2]``.
    """

    about: NaturalSet
    examples: Sequence[Example]
    good: np.ndarray
    groups: np.ndarray
    pairs: np.ndarray

    @property
    def judged(self) -> Judged:
        """The rows as the evidence judges them."""
        return Judged(self.about.name, self.examples, np.where(self.good, "", BAD))


def read_sets(data: Path, most: int | None = None) -> list[Natural]:
    """Return the sets whose files are there, each with ``most`` rows at most."""
    found = [_read(one, data / one.file, most) for one in SETS if (data / one.file).is_file()]
    if not found:
        raise FileNotFoundError(f"{data} holds none of {', '.join(one.file for one in SETS)}")
    return found


def absent(data: Path) -> list[str]:
    """Return the files of sets that a data folder has not."""
    return [one.file for one in SETS if not (data / one.file).is_file()]


def _read(about: NaturalSet, path: Path, most: int | None) -> Natural:
    rows = list(usable_rows(path))[:most]
    examples = [example for example, _ in rows]
    good = np.array([row["quality"] == "good" for _, row in rows])
    names = [row.get("pair") or "" for _, row in rows]
    by_pair: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name:
            by_pair.setdefault(name, []).append(place)
    pairs = [
        (better, worse)
        for places in by_pair.values()
        for better in places
        for worse in places
        if good[better] and not good[worse]
    ]
    prompts = [normal([example.messages[0].content]) for example in examples]
    groups = _joined(prompts, names)
    return Natural(about, examples, good, groups, np.array(pairs, dtype=np.int64).reshape(-1, 2))


def usable_rows(path: Path) -> Iterator[tuple[Example, dict[str, object]]]:
    """Yield the rows of a file that are conversations and whose prompt the pool has not."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            messages = messages_from(row["messages"])
            if not row.get("prompt_in_pool") and conversation_problem(messages) is None:
                yield Example(content_id(messages).hex(), row["dataset"], messages), row


def _joined(prompts: Sequence[str], pairs: Sequence[str]) -> np.ndarray:
    """Return a number for each row, equal where rows are joined by a prompt or a pair."""
    parent = list(range(len(prompts)))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, keys in enumerate(zip(prompts, pairs, strict=True)):
        for kind, key in zip(("prompt", "pair"), keys, strict=True):
            if key:
                other = first.setdefault((kind, key), place)
                parent[root(place)] = root(other)
    return np.array([root(place) for place in range(len(parent))], dtype=np.int64)


def raw_pair(better: Example, worse: Example, where: str = "") -> RawPair:
    """Return two rows as a reader of preference pairs gives them."""
    halves = [RawExample("natural", row.messages, where) for row in (better, worse)]
    return RawPair(*halves)


@dataclass(frozen=True)
class Together:
    """All sets, one behind another.

    Attributes:
        sets: the sets.
        examples: their rows.
        groups: as in each set, int ``[rows]``; no group lies in two sets.
        pairs: as in each set, int ``[pairs, 2]``.
        of: the number of the set of each row.
    """

    sets: Sequence[Natural]
    examples: Sequence[Example]
    groups: np.ndarray
    pairs: np.ndarray
    of: np.ndarray

    @classmethod
    def join(cls, sets: Sequence[Natural]) -> "Together":
        """Return the sets as one."""
        sizes = [len(one.examples) for one in sets]
        starts = np.cumsum([0, *sizes])[:-1]
        return cls(
            sets,
            [example for one in sets for example in one.examples],
            np.concatenate([one.groups + at for one, at in zip(sets, starts, strict=True)]),
            np.concatenate([one.pairs + at for one, at in zip(sets, starts, strict=True)]),
            np.repeat(np.arange(len(sets)), sizes),
        )

    def folds(self, count: int, seed: int = 1) -> np.ndarray:
        """Return the fold of each row: rows of one group are in one fold, int ``[rows]``."""
        names, codes = np.unique(self.groups, return_inverse=True)
        order = np.random.default_rng(seed).permutation(len(names))
        return np.asarray(order[codes] % count)

    def teaching(self, differ: Callable[[int, int], bool]) -> "Together":
        """Return the same rows with the pairs that a warm-up can learn from.

        They answer one prompt, are no repetition, and ``differ(better, worse)`` after truncation.
        """
        seen: set[tuple[str, str]] = set()
        kept = []
        for better, worse in self.pairs.tolist():
            halves = (self.examples[better], self.examples[worse])
            name = (halves[0].id, halves[1].id)
            if name in seen or pair_problem(raw_pair(*halves)) or not differ(better, worse):
                continue
            seen.add(name)
            kept.append((better, worse))
        return replace(self, pairs=np.array(kept, dtype=np.int64).reshape(-1, 2))

    def others(self, rows: np.ndarray, count: int | None, seed: int = 1) -> np.ndarray:
        """Return up to ``count`` pairs of which no row is among ``rows`` (bool), ``[pairs, 2]``."""
        left = self.pairs[~rows[self.pairs].any(axis=1)]
        order = np.random.default_rng(seed).permutation(len(left))
        return np.asarray(left[order[:count]])

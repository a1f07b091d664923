"""Preference pairs: two answers to one prompt, the better and the worse one."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from selectmoe_core.data.examples import (
    Example,
    Message,
    RawExample,
    RawPair,
    Reject,
    content_id,
)
from selectmoe_core.data.pool import Pool
from selectmoe_core.data.pool_writer import build_pool, checked
from selectmoe_core.errors import StageError

PAIRS = "pairs.json"
FORMAT = 1
TABLE = "[warmup.pairs]"


def _check_format(found: object) -> None:
    if found != FORMAT:
        raise ValueError(f"its format is {found}, not {FORMAT}")


@dataclass(frozen=True)
class PairTable:
    """Pairs on disk: a pool in which each chosen conversation is followed by the rejected one.

    Attributes:
        pool: the conversations.
        share: the share of the pairs of an epoch that are these; ``None`` uses each once.
        duplicates: pairs that were left out because an earlier one is the same.
    """

    pool: Pool
    share: float | None
    duplicates: int

    @classmethod
    def open(cls, folder: Path) -> "PairTable":
        """Open what ``build_pairs`` wrote.

        Raises:
            StageError: a file of it is missing or damaged.
        """
        try:
            notes = json.loads((folder / PAIRS).read_bytes())
            _check_format(notes["format"])
            return cls(Pool.open(folder), notes["share"], notes["duplicates"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StageError(
                f"{folder / PAIRS} is missing or damaged: {error}",
                hint=f"remove the folder {folder} to have it made again",
            ) from None

    def __len__(self) -> int:
        return len(self.pool) // 2

    def chosen(self) -> Iterator[Example]:
        """Yield the better conversation of each pair."""
        return self.pool.take(np.arange(0, len(self.pool), 2))

    def rejected(self) -> Iterator[Example]:
        """Yield the worse conversation of each pair, in the same order."""
        return self.pool.take(np.arange(1, len(self.pool), 2))


def build_pairs(
    rows: Iterable[RawPair | Reject],
    folder: Path,
    *,
    share: float | None = None,
    on_reject: Literal["stop", "skip"] = "stop",
    advance: Callable[[float], None] = lambda _: None,
) -> PairTable:
    """Check the pairs and write them into ``folder``, without exact duplicates.

    Raises:
        DataError: at the first row that is no usable pair if ``on_reject`` is ``"stop"``, and if no
            pair is left.
    """
    halves = Halves(rows)
    build_pool(
        halves,
        folder,
        on_reject=on_reject,
        advance=advance,
        table=TABLE,
        keep_duplicates=True,
    )
    notes = {"format": FORMAT, "share": share, "duplicates": halves.duplicates}
    (folder / PAIRS).write_text(json.dumps(notes), encoding="utf-8")
    return PairTable.open(folder)


class Halves:
    """Yields the two conversations of each pair one after the other, or why it cannot be used.

    Answers that both share are marked as not trained on: they say nothing about the preference.

    Attributes:
        duplicates: pairs that were left out because an earlier one is the same.
    """

    def __init__(self, rows: Iterable[RawPair | Reject]) -> None:
        self._rows = rows
        self._seen: set[bytes] = set()
        self.duplicates = 0

    def __iter__(self) -> Iterator[RawExample | Reject]:
        for row in self._rows:
            if isinstance(row, Reject):
                yield row
            elif problem := pair_problem(row):
                yield Reject(row.chosen.source, row.chosen.where, problem)
            else:
                yield from self._halves(row)

    def _halves(self, row: RawPair) -> Iterator[RawExample | Reject]:
        shared = _shared(row)
        halves = [
            replace(half, messages=_read_only(half.messages, shared), label=label)
            for half, label in ((row.chosen, "chosen"), (row.rejected, "rejected"))
        ]
        for name, half in zip(("chosen", "rejected"), map(checked, halves), strict=True):
            if isinstance(half, Reject):
                yield replace(half, reason=f"'{name}': {half.reason}")
                return
        identity = b"".join(content_id(half.messages) for half in halves)
        if identity in self._seen:
            self.duplicates += 1
            return
        self._seen.add(identity)
        yield from halves


def pair_problem(row: RawPair) -> str | None:
    """Return why two conversations are no pair, or ``None`` if they are one."""
    halves = (row.chosen.messages, row.rejected.messages)
    if halves[0] == halves[1]:
        return "'chosen' and 'rejected' are the same"
    shared = _shared(row)
    rest = [half[shared:] for half in halves]
    if not all(rest):
        return "'chosen' and 'rejected' differ only in that one of them goes on"
    if any(half[0].role != "assistant" for half in rest):
        return f"'chosen' and 'rejected' answer different prompts: turn {shared + 1} differs"
    return None


def _shared(row: RawPair) -> int:
    """Return how many turns the two conversations share at their beginning."""
    both = list(zip(row.chosen.messages, row.rejected.messages, strict=False))
    return next((n for n, (one, other) in enumerate(both) if one != other), len(both))


def _read_only(messages: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """Return the conversation with the answers among its first ``count`` turns not trained on."""
    return tuple(
        replace(turn, trained=False) if place < count and turn.role == "assistant" else turn
        for place, turn in enumerate(messages)
    )

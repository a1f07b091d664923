"""The rows of the evidence: a pool to learn from, planted rows to judge by, and no overlap."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rows import drawn_order

from selectmoe_core.data.corruption import Damage, plant_some
from selectmoe_core.data.examples import Example, content_id, conversation_problem
from selectmoe_core.data.turns import messages_from

HELD = 1500
"""Rows of the pool that no training sees: half of them are damaged, to judge kinds by that the
planted file does not have."""


@dataclass(frozen=True)
class Judged:
    """Rows to judge a score by.

    Attributes:
        name: of the set.
        examples: the rows.
        kinds: the damage of each, "" for none.
    """

    name: str
    examples: Sequence[Example]
    kinds: np.ndarray

    @property
    def clean(self) -> np.ndarray:
        """Which rows are not damaged, bool ``[rows]``."""
        clean: np.ndarray = self.kinds == ""
        return clean


def read_rows(path: Path) -> Iterator[tuple[Example, str]]:
    """Yield each row of a JSON-lines file of LESS's layout, and what was planted in it."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            messages = messages_from(row["messages"])
            if conversation_problem(messages) is None:
                identity = content_id(messages).hex()
                yield Example(identity, row["dataset"], messages), row.get("planted") or ""


def read_pool(folder: Path) -> list[Example]:
    """Return the different examples of a pool of LESS's layout, in an order that ids decide."""
    found = {
        example.id: example
        for path in sorted(folder.glob("train/processed/*/*.jsonl"))
        for example, _ in read_rows(path)
    }
    if not found:
        raise FileNotFoundError(f"{folder} holds no train/processed/*/*.jsonl")
    return drawn_order(list(found.values()), 0xE51D)


def read_planted(path: Path) -> Judged:
    """Return the planted rows. They are for judging: nothing is fitted on them."""
    rows = list(read_rows(path))
    return Judged("planted", [row for row, _ in rows], np.array([kind for _, kind in rows]))


@dataclass(frozen=True)
class Overlap:
    """What a pool and planted rows have in common, letters and digits alone compared.

    Attributes:
        whole: planted rows that are in the pool, prompt and answer.
        prompts: planted rows of which the pool has the prompt.
        answers: planted rows of which the pool has the answer.
        touched: rows of the pool that share a prompt or an answer with a planted one.
    """

    whole: int
    prompts: int
    answers: int
    touched: frozenset[str]


def overlap(pool: Sequence[Example], planted: Sequence[Example]) -> Overlap:
    """Compare planted rows with a pool."""
    parts = {example.id: _parts(example) for example in pool}
    theirs = [_parts(example) for example in planted]
    pairs = set(parts.values())
    prompts, answers = ({pair[half] for pair in pairs} for half in (0, 1))
    their_prompts, their_answers = ({pair[half] for pair in theirs} for half in (0, 1))
    return Overlap(
        sum(pair in pairs for pair in theirs),
        sum(pair[0] in prompts for pair in theirs),
        sum(pair[1] in answers for pair in theirs),
        frozenset(
            name
            for name, (prompt, answer) in parts.items()
            if prompt in their_prompts or answer in their_answers
        ),
    )


def apart(rows: Sequence[Example], held: Sequence[Example]) -> list[Example]:
    """Return the rows that open with no prompt that a held one opens with.

    Conversations of one tree share their beginning, and cut to the format's length two of them can
    be the same tokens.
    """
    openings = {_opening(row) for row in held}
    return [row for row in rows if _opening(row) not in openings]


def _opening(example: Example) -> str:
    return normal([example.messages[0].content])


def _parts(example: Example) -> tuple[str, str]:
    """Return a row's prompts and its answers, normalised."""
    answers = [message.content for message in example.messages if message.role == "assistant"]
    prompts = [message.content for message in example.messages if message.role != "assistant"]
    return normal(prompts), normal(answers)


def normal(texts: Sequence[str]) -> str:
    """Return the letters and digits of texts."""
    folded = "\0".join(texts).casefold()
    return "".join(character for character in folded if character.isalnum() or character == "\0")


def held_out(rows: Sequence[Example], damages: Mapping[str, Damage], seed: int) -> Judged:
    """Return rows of which the first half is damaged, in kinds drawn alike."""
    rates = dict.fromkeys(damages, 1.0)
    examples, kinds = [], []
    for number, example in enumerate(rows):
        planted = plant_some(example, list(damages.values()), rates, rows, seed)
        if number < len(rows) // 2 and planted is not None:
            examples.append(planted.example)
            kinds.append(planted.kind)
        else:
            examples.append(example)
            kinds.append("")
    return Judged("held", examples, np.array(kinds))


def about(pool: int, judged: Sequence[Judged], shared: Overlap) -> dict[str, Any]:
    """Return the counts that the results begin with."""
    return {
        "pool": pool,
        "judged": {
            one.name: {kind or "clean": int((one.kinds == kind).sum()) for kind in set(one.kinds)}
            for one in judged
        },
        "planted_rows_in_pool": shared.whole,
        "planted_prompts_in_pool": shared.prompts,
        "planted_answers_in_pool": shared.answers,
        "rows_left_out_for_it": len(shared.touched),
    }

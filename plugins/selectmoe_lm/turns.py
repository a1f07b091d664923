"""Where the answers of an encoded conversation stand, and what stands before them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from selectmoe_core.data import Part
from selectmoe_core.tokens import EncodedExample


@dataclass(frozen=True)
class Turn:
    """An answer and the request before it.

    Attributes:
        header: the first of the format's tokens that stand right before the answer.
        start: the first token of the answer.
        stop: the token after its last.
    """

    header: int
    start: int
    stop: int


def answered_turns(example: EncodedExample) -> list[Turn]:
    """Return the answers that follow a message of the user or the system.

    An answer right after another answer, or after an empty request, has no instruction of its own.
    """
    return [
        Turn(_header(example.parts, end, start), start, stop)
        for end, start, stop in _answers(example.parts)
        if (example.parts[end:start] == Part.PROMPT).any()
    ]


def alone(example: EncodedExample, turn: Turn, bos: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the answer without its conversation: token ids and which of them count.

    Before it stand only the format's tokens that open it, and the beginning-of-sequence token where
    the whole conversation begins with it. Where that is nothing, its first token does not count.
    """
    opened = bos is not None and turn.header > 0 and int(example.ids[0]) == bos
    ids = np.concatenate([example.ids[: int(opened)], example.ids[turn.header : turn.stop]])
    mask = np.arange(len(ids)) >= max(1, len(ids) - (turn.stop - turn.start))
    return ids, mask


def within(example: EncodedExample, turns: list[Turn], counts: list[int]) -> np.ndarray:
    """Return which tokens of a conversation count: the last ``counts[i]`` of each answer."""
    mask = np.zeros(len(example.ids), dtype=bool)
    for turn, count in zip(turns, counts, strict=True):
        mask[turn.stop - count : turn.stop] = True
    return mask


def _answers(parts: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield the end of the answer before, the start and the end of each answer."""
    answer = np.concatenate([[False], parts == Part.RESPONSE, [False]])
    starts, stops = np.flatnonzero(np.diff(answer.astype(np.int8))).reshape(-1, 2).T
    yield from zip([0, *stops[:-1].tolist()], starts.tolist(), stops.tolist(), strict=False)


def _header(parts: np.ndarray, end: int, start: int) -> int:
    """Return where the format's tokens that reach up to ``start`` begin."""
    other = np.flatnonzero(parts[end:start] != Part.FORMAT)
    return end + int(other[-1]) + 1 if len(other) else end

"""Runs of words as numbers: what two texts have in common is what their sets of numbers share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from selectmoe_core import Example, Message
from selectmoe_filters.config import NearDuplicatesConfig
from selectmoe_filters.texts import folded, parts, tokens

KNOWN = 1 << 20
"""Words whose hash is remembered at most."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Shingles:
    """The different runs of several texts, one behind another.

    Attributes:
        values: uint64 ``[runs]``, those of one text sorted.
        sizes: runs of each text, int64 ``[texts]``.
        whole: a hash of each folded text, uint64 ``[texts]``.
        openings: a hash of each shorter conversation that a text begins with, uint64.
        owners: the text of each opening, int64.
    """

    values: np.ndarray
    sizes: np.ndarray
    whole: np.ndarray
    openings: np.ndarray
    owners: np.ndarray


class Shingler:
    """Turns examples into runs of words."""

    def __init__(self, config: NearDuplicatesConfig) -> None:
        self.config = config
        self._known: dict[str, int] = {}

    def __call__(self, examples: Sequence[Example]) -> Shingles:
        """Return the runs of examples."""
        hashes: list[int] = []
        ends, whole = np.zeros(len(examples) + 1, dtype=np.int64), []
        openings: list[int] = []
        owners: list[int] = []
        if len(self._known) > KNOWN:
            self._known.clear()
        for place, example in enumerate(examples):
            digests = self._add(parts(example, self.config.text), hashes)
            ends[place + 1] = len(hashes)
            whole.append(digests[-1])
            shorter = digests[1:-1] if self._openings else ()
            openings += shorter
            owners += [place] * len(shorter)
        values, sizes = runs(np.array(hashes, dtype=np.uint64), ends, self.config.ngram)
        return Shingles(
            values,
            sizes,
            np.array(whole, dtype=np.uint64),
            np.array(openings, dtype=np.uint64),
            np.array(owners, dtype=np.int64),
        )

    @property
    def _openings(self) -> bool:
        return self.config.prefixes and self.config.text == "conversation"

    def _add(self, messages: Iterable[Message], hashes: list[int]) -> list[int]:
        """Append the hashes of the words; return the hash of the text up to each message's end."""
        state = blake2b(digest_size=8)
        digests = [0]
        for message in messages:
            text = folded(message.content)
            state.update(f"{message.role} {len(text)} {text}".encode("utf-8", "surrogatepass"))
            digests.append(int.from_bytes(state.digest(), "little"))
            hashes.append(self._hash(f"<{message.role}>"))
            hashes += [self._known.get(word) or self._hash(word) for word in tokens(text)]
        return digests

    def _hash(self, word: str) -> int:
        known = self._known.get(word)
        if known is None:
            digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            known = self._known[word] = int.from_bytes(digest, "little") or 1
        return known


def runs(hashes: np.ndarray, ends: np.ndarray, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different runs of each text, sorted, and how many each has.

    Args:
        hashes: a hash for each word, uint64 ``[words]``.
        ends: where each text's words begin, and behind the last where they end, ``[texts + 1]``.
        ngram: words of a run; a text with fewer is one run.
    """
    lengths = np.diff(ends)
    counts = np.where(lengths > 0, np.maximum(lengths - ngram + 1, 1), 0)
    owner = np.repeat(np.arange(len(lengths)), counts)
    first = np.cumsum(counts) - counts
    starts = np.arange(len(owner)) + np.repeat(ends[:-1] - first, counts)
    stops = np.minimum(starts + ngram, ends[1:][owner])
    values = np.zeros(len(starts), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for step in range(ngram):
            inside = starts + step < stops
            word = hashes[np.where(inside, starts + step, 0)] if len(hashes) else values
            mixed = (values ^ (values >> np.uint64(29))) * _MIX + word * _FACTOR
            values = np.where(inside, mixed, values)
    order = np.lexsort((values, owner))
    values, owner = values[order], owner[order]
    new = np.append(True, (values[1:] != values[:-1]) | (owner[1:] != owner[:-1]))[: len(values)]
    return values[new], np.bincount(owner[new], minlength=len(lengths))

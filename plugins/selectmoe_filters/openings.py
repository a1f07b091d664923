"""Which rows of a pool may hold one of many runs of words, found from the bytes of the texts.

A run of words is found as a run of bytes: the text in small letters, with one byte between words.
The hash of every run comes from two entries of one running sum (Karp and Rabin 1987), so that the
time is in proportion to the text, however many runs are looked for. Equal runs have equal hashes;
a row whose hash is known by chance is for the caller to look at.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selectmoe_filters.texts import words

Run = tuple[str, ...]
BYTES = 1 << 16
"""Bytes of text that are looked at together; a longer message is looked at alone."""
MOST_BITS = 24
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX = np.uint64(0xD1B54A32D192ED03)


def _letters() -> np.ndarray:
    """Return for each byte the small letter or digit that it is, or 0 between words: uint8 [256].

    A byte of a character beyond ASCII is part of a word: texts with such are split before.
    """
    table = np.arange(256, dtype=np.uint8)
    for byte in range(128):
        table[byte] = ord(chr(byte).lower()) if chr(byte).isalnum() else 0
    return table


LETTERS = _letters()


class Openings:
    """Finds rows that may hold one of the given runs of words, all of one size."""

    def __init__(self, runs: Iterable[Run], size: int) -> None:
        """Look for ``runs``, each of ``size`` words."""
        self._size = size
        self._powers = np.ones(1, dtype=np.uint64)
        self._inverse = np.ones(1, dtype=np.uint64)
        texts = pa.array([" ".join(run) for run in runs], pa.string())
        hashes = [self._hashes(piece)[0] for _, piece in _pieces(texts)]
        self._known = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *hashes]))
        bits = min(MOST_BITS, 6 + len(self._known).bit_length())
        self._shift = np.uint64(64 - bits)
        self._likely = np.zeros(1 << bits, dtype=bool)
        self._likely[self._known >> self._shift] = True

    def rows(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return the rows of a batch of the pool that may hold a run, int64, sorted.

        A run lies within one message. No row that holds one is missing.
        """
        lists = batch.column("messages")
        owner = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy())
        found = [np.empty(0, dtype=np.int64)]
        for start, texts in _pieces(_split(pc.struct_field(lists.flatten(), "content"))):
            hashes, message = self._hashes(texts)
            likely = self._likely[hashes >> self._shift]
            found.append(owner[start + message[likely][self._are_known(hashes[likely])]])
        return np.unique(np.concatenate(found))

    def _hashes(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the hash of each run of words within a text, uint64, and the text's number."""
        joined, ends = _joined(texts)
        letters = LETTERS[joined]
        inside = letters != 0
        behind = np.append(False, inside[:-1])
        packed = letters[inside | behind]  # each word with one zero behind it
        stops = np.flatnonzero(packed == 0) + 1
        starts = np.append(0, stops)[: len(stops)]
        text = np.searchsorted(ends, np.flatnonzero(behind & ~inside), side="right")
        last = self._size - 1
        first, stops = starts[: max(len(starts) - last, 0)], stops[last:]
        whole = text[last:] == text[: len(first)]
        first, stops, text = first[whole], stops[whole], text[: len(whole)][whole]
        self._reach(len(packed))
        with np.errstate(over="ignore"):
            terms = packed * self._powers[: len(packed)]
            sums = np.append(np.zeros(1, dtype=np.uint64), np.cumsum(terms))
            hashes = (sums[stops] - sums[first]) * self._inverse[first]
            return (hashes ^ (hashes >> np.uint64(32))) * _MIX, text

    def _are_known(self, hashes: np.ndarray) -> np.ndarray:
        if not len(self._known):
            return np.zeros(len(hashes), dtype=bool)
        places = np.searchsorted(self._known[:-1], hashes)
        return np.asarray(self._known[places] == hashes)

    def _reach(self, size: int) -> None:
        """Know the powers up to ``size``."""
        if len(self._powers) <= size:
            self._powers, self._inverse = _powers(_BASE, size + 1), _powers(_INVERSE, size + 1)


def _powers(base: int, size: int) -> np.ndarray:
    """Return the powers of a base modulo 2**64, uint64 ``[size or more]``."""
    powers = np.ones(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        while len(powers) < size:
            step = np.uint64(pow(base, len(powers), 1 << 64))
            powers = np.concatenate([powers, powers * step])
    return powers


def _split(texts: pa.Array) -> pa.Array:
    """Return texts with those beyond ASCII as their words, with a space between two."""
    other = pc.invert(pc.string_is_ascii(texts))
    if not pc.any(other).as_py():
        return texts
    changed = [" ".join(words(text)) for text in texts.filter(other).to_pylist()]
    return pc.replace_with_mask(texts, other, pa.array(changed, texts.type))


def _pieces(texts: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Yield texts in pieces of about ``BYTES``, each with the number of its first one."""
    ends = np.cumsum(pc.binary_length(texts).to_numpy(), dtype=np.int64)
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + BYTES, side="right")), start + 1)
        yield start, texts.slice(start, stop - start)
        start = stop


def _joined(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of texts, with a line's end behind each, and where each text ends."""
    sizes = pc.binary_length(texts).to_numpy()
    offsets = pa.array([0, len(texts)], pa.int32())
    lines = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), "\n")[0].as_buffer()
    joined = np.append(np.frombuffer(lines, dtype=np.uint8), np.uint8(10))
    return joined, np.cumsum(sizes + 1)

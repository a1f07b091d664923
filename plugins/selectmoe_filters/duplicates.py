"""The filter ``near-duplicates``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from selectmoe_core import Job, Marks
from selectmoe_core.data import Pool
from selectmoe_filters.candidates import band_keys, bands_for, candidate_pairs, similarities
from selectmoe_filters.config import NearDuplicatesConfig
from selectmoe_filters.shingles import Shingler, Shingles

BATCH = 4096
"""Examples looked at together."""


@dataclass(frozen=True)
class Read:
    """What was read of the pool.

    Attributes:
        values: the runs of all texts, uint64, mapped from a file.
        starts: where each text's begin and the last one's end, int64 ``[rows + 1]``.
        keys: the keys of the bands, uint64 ``[bands, rows]``, mapped from a file.
        whole: a hash of each folded text, uint64 ``[rows]``.
        openings: hashes of the shorter conversations that rows begin with, uint64.
        owners: the row of each opening, int64.
    """

    values: np.ndarray
    starts: np.ndarray
    keys: np.ndarray
    whole: np.ndarray
    openings: np.ndarray
    owners: np.ndarray


class NearDuplicates:
    """Groups examples that are alike; see ``NearDuplicatesConfig``."""

    def __init__(self, config: NearDuplicatesConfig) -> None:
        self.config = config

    def mark(self, pool: Pool, job: Job) -> Marks:
        """Return the groups of examples that are alike, each of two or more."""
        job.scratch.mkdir(parents=True, exist_ok=True)
        read = self._read(pool, job)
        groups = Groups(len(pool))
        groups.join(equal_texts(read.whole))
        groups.join(opened(read))
        rank = np.empty(len(pool), dtype=np.int64)
        ids = pool.ids()
        rank[np.lexsort((ids[:, 1], ids[:, 0]))] = np.arange(len(pool))
        first = first_of(read.whole, rank)
        with job.progress.task("compare", len(read.keys), "bands") as advance:
            for keys in read.keys:
                pairs = first[candidate_pairs(np.asarray(keys)[first], rank[first])]
                pairs = groups.undecided(pairs)
                near = list(similarities(read.values, read.starts, pairs))
                found = np.concatenate([np.empty(0), *near]) >= self.config.similarity
                groups.join(pairs[found])
                groups.part(pairs[~found])
                advance(1)
        return groups.marks()

    def _read(self, pool: Pool, job: Job) -> Read:
        """Read the pool once; what grows with it goes to files."""
        bands, rows = bands_for(self.config.similarity)
        shingler = Shingler(self.config)
        keys = _file(job.scratch / "keys", np.uint64, (bands, len(pool)))
        sizes = np.zeros(len(pool), dtype=np.int64)
        whole = np.empty(len(pool), dtype=np.uint64)
        openings, owners = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
        values = job.scratch / "runs"
        with job.progress.task("near-duplicates", len(pool)) as advance, values.open("wb") as file:
            for start, found in _batches(pool, shingler):
                stop = start + len(found.sizes)
                keys[:, start:stop] = band_keys(found, bands, rows)
                sizes[start:stop], whole[start:stop] = found.sizes, found.whole
                openings.append(found.openings)
                owners.append(found.owners + start)
                found.values.tofile(file)
                advance(stop - start)
        return Read(
            np.memmap(values, dtype=np.uint64, mode="r") if sizes.any() else openings[0],
            np.concatenate([[0], np.cumsum(sizes)]),
            keys,
            whole,
            np.concatenate(openings),
            np.concatenate(owners),
        )


def _batches(pool: Pool, shingler: Shingler) -> Iterator[tuple[int, Shingles]]:
    for start in range(0, len(pool), BATCH):
        yield start, shingler(list(pool.examples(start, start + BATCH)))


def _file(path: Path, kind: type, shape: tuple[int, int]) -> np.ndarray:
    if not shape[1]:
        return np.empty(shape, dtype=kind)
    return np.memmap(path, dtype=kind, mode="w+", shape=shape)


def equal_texts(whole: np.ndarray) -> np.ndarray:
    """Return pairs that connect the rows of each hash: ``[pairs, 2]``."""
    order = np.argsort(whole, kind="stable")
    same = whole[order][1:] == whole[order][:-1]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def first_of(whole: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return of the rows of each hash the one with the smallest id, sorted by position."""
    order = np.lexsort((rank, whole))
    new = np.append(True, whole[order][1:] != whole[order][:-1])[: len(order)]
    return np.sort(order[new])


def opened(read: Read) -> np.ndarray:
    """Return pairs of a row and one that is a shorter conversation it begins with."""
    order = np.argsort(read.whole, kind="stable")
    ordered = read.whole[order]
    places = np.minimum(np.searchsorted(ordered, read.openings), len(ordered) - 1)
    if not len(places):
        return np.empty((0, 2), dtype=np.int64)
    there = ordered[places] == read.openings
    return np.stack([read.owners[there], order[places[there]]], axis=1)


class Groups:
    """Rows that were found alike, whichever way."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.labels = np.arange(rows)
        self._apart = np.empty(0, dtype=np.int64)

    def join(self, pairs: np.ndarray) -> None:
        """Put the two rows of each pair into one group."""
        if not len(pairs):
            return
        own = self.labels[pairs]
        graph = coo_array((np.ones(len(own), dtype=bool), own.T), shape=(self.rows, self.rows))
        _, found = connected_components(graph, directed=False)
        self.labels = found[self.labels]

    def part(self, pairs: np.ndarray) -> None:
        """Remember pairs that were compared and are not alike."""
        self._apart = np.union1d(self._apart, self._key(pairs))

    def undecided(self, pairs: np.ndarray) -> np.ndarray:
        """Return the pairs that are in two groups and were not compared yet."""
        apart = self.labels[pairs[:, 0]] != self.labels[pairs[:, 1]]
        pairs = pairs[apart]
        return pairs[~np.isin(self._key(pairs), self._apart)]

    def marks(self) -> Marks:
        """Return the groups of two rows and more."""
        sizes = np.bincount(self.labels, minlength=self.rows)
        rows = np.flatnonzero(sizes[self.labels] > 1)
        return Marks.grouped(rows, self.labels[rows])

    def _key(self, pairs: np.ndarray) -> np.ndarray:
        return np.asarray(pairs[:, 0] * self.rows + pairs[:, 1])

"""Which texts may be alike: locality-sensitive hashing of MinHash signatures.

Two texts with the Jaccard similarity ``s`` agree in all ``rows`` values of a band with probability
``s ** rows``, and in one of ``bands`` bands with ``1 - (1 - s ** rows) ** bands`` (Leskovec,
Rajaraman, Ullman: Mining of Massive Datasets, chapter 3).
"""

from collections.abc import Iterator

import numpy as np
from rensa import RMinHash

from selectmoe_filters.shingles import Shingles

VALUES = 128
"""Values of a signature at most."""
RECALL = 0.99
"""The least probability that two texts at the threshold become candidates."""
SEED = 42
NEIGHBOURS = 8
"""Texts that each is compared with in a band, in the order of their ids, beside the first."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def bands_for(similarity: float) -> tuple[int, int]:
    """Return how many bands of how many values find what is so similar, with few others."""
    fitting = [
        (VALUES // rows, rows)
        for rows in range(1, VALUES + 1)
        if 1 - (1 - similarity**rows) ** (VALUES // rows) >= RECALL
    ]
    return fitting[-1]


def band_keys(shingles: Shingles, bands: int, rows: int) -> np.ndarray:
    """Return a key for each band of each text's signature, uint64 ``[bands, texts]``."""
    offsets = np.concatenate([[0], np.cumsum(shingles.sizes)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.values, offsets, bands * rows, SEED
    )
    signature = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, bands, rows)
    keys = np.zeros(signature.shape[:2], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for row in range(rows):
            keys = (keys ^ (keys >> np.uint64(31))) * _FACTOR + signature[:, :, row]
    return keys.T


def candidate_pairs(keys: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return pairs of texts that share a key, each once and sorted: ``[pairs, 2]``.

    A text is paired with the first of its key and with the next few in the order of their ids, so
    that a key that very many share costs no square of them.

    Args:
        keys: uint64 ``[texts]``.
        rank: the place of each text's id in the order of ids, ``[texts]``.
    """
    order = np.lexsort((rank, keys))
    ordered = keys[order]
    new = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    starts = np.flatnonzero(new)[np.cumsum(new) - 1] if len(new) else np.empty(0, dtype=np.int64)
    found = [np.stack([order[starts], order])[:, starts != np.arange(len(order))]]
    for step in range(1, NEIGHBOURS + 1):
        same = ordered[step:] == ordered[:-step]
        found.append(np.stack([order[:-step][same], order[step:][same]]))
    pairs = np.sort(np.concatenate(found, axis=1), axis=0).T
    return np.unique(pairs, axis=0)


def similarities(
    values: np.ndarray, starts: np.ndarray, pairs: np.ndarray, block: int = 1 << 15
) -> Iterator[np.ndarray]:
    """Yield the Jaccard similarities of pairs of texts, block by block.

    Args:
        values: the different runs of all texts, uint64.
        starts: where each text's begin, and where the last one's end, ``[texts + 1]``.
        pairs: ``[pairs, 2]``.
        block: pairs looked at together.
    """
    for start in range(0, len(pairs), block):
        some = pairs[start : start + block]
        begins = starts[some].reshape(-1)
        sizes = starts[some.reshape(-1) + 1] - begins
        owner = np.repeat(np.repeat(np.arange(len(some)), 2), sizes)
        places = np.arange(len(owner)) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
        own = np.asarray(values[places])
        order = np.lexsort((own, owner))
        own, owner = own[order], owner[order]
        shared = (own[1:] == own[:-1]) & (owner[1:] == owner[:-1])
        common = np.bincount(owner[1:][shared], minlength=len(some))
        yield common / np.maximum(sizes.reshape(-1, 2).sum(axis=1) - common, 1)
